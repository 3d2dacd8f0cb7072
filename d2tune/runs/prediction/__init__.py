"""Predicting on many images: which they are, going on after an interruption, shards and their merge, Ray."""
