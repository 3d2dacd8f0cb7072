"""From a ``Dataset`` to tensors: Detectron2 registration, mapping, augmentation, and the order of batches."""
