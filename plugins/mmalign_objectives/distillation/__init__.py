"""Objectives that learn from the distributions of teachers."""
