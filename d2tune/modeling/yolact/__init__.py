"""YOLACT: instances from prototypes of the image and coefficients of each box, without a second stage."""
