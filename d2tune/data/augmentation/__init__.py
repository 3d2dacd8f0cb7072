"""What is varied at random in training images: their colors, the part that is cut out, and objects of other images."""
