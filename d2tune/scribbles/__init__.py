"""Scribbles and boxes of Labelme files, and the polygons that they become."""
