"""What a person looks at after training: the report of runs."""
