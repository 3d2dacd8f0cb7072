"""A folder to hand over: a model with its card, reports, data summary, licenses, and how to run it."""
