"""Putting a trained model to work on images."""
