"""Who runs the models: batches, forward passes, memory."""
