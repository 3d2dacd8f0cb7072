"""Work with finished runs: load, predict, evaluate and compare."""
