"""Predictions of any model from files: read and scored."""
