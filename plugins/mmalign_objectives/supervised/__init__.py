"""Likelihood of target responses."""
