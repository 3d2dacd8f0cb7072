"""The page on which a client judges what a model predicts, and what becomes of the judgments."""
