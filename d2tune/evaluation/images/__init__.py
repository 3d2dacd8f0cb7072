"""What is right and wrong on each image of an evaluation."""
