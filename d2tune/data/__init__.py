"""From a ``Dataset`` to tensors: registration with Detectron2, mapping, augmentation, and the order of batches."""
