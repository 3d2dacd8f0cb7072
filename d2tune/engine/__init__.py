"""Training: the plan, the loop and its hooks, checkpoints, and the run folder."""
