"""The trained network with its heads, adapters, and how networks are called without gradient."""
