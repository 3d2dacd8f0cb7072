"""Several networks, or several views of one, as one model of Detectron2."""
