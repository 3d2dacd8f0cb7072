"""Running a trained model on images: predictors, their results, and writers of results."""
