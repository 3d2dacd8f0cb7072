"""The check of an export: a process of its own in which the exported model and the one that it was made of predict."""
