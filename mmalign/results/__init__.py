"""What is left of a run on the disk."""
