"""Policy gradients on sampled responses and their advantages or rewards."""
