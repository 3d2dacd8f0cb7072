"""Classical methods fitted and scored on the data of a project."""
