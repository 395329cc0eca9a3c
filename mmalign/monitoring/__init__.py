"""What is seen of a run while it goes: metrics, sentinels, progress, samples."""
