"""What is expensive to make and the same for every run, kept on the disk."""
