"""Polygons through a video: the outlines of some frames carried to all others, as Labelme files to correct."""
