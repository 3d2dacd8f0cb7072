"""Putting a working Detectron2 into this environment, without a compiler."""
