"""Looking up image files by the names in annotation files: walking folders, reading names, and an index of names."""
