"""Showing experiments elsewhere: Weights & Biases."""
