"""Many trainings for one question: folds of cross-validation, and searches for better settings."""
