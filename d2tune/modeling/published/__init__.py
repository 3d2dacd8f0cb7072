"""Networks that others trained and published, ready to predict."""
