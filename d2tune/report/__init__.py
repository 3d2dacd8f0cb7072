"""What a run shows: pictures and tables."""
