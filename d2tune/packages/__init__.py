"""Packages: a folder with everything that predicting with a model needs, and nothing of the machine that made it."""
