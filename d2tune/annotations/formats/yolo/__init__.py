"""YOLO's label files: a text file for each image, and ``data.yaml`` with the classes."""
