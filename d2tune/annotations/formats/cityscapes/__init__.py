"""Cityscapes: polygons of each image as JSON, and label images."""
