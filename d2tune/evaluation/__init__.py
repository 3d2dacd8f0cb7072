"""Running a model over a dataset, and scoring what it finds."""
