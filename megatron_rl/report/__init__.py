"""What a person and a program can see of a run."""
