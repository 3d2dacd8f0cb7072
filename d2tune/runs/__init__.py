"""Using a finished run: load, predict, evaluate and compare."""
