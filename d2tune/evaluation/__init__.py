"""Evaluation: predictions of a dataset or from files are scored, compared and drawn."""
