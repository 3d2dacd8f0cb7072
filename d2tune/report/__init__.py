"""What a run shows: images and tables."""
