"""Tries plugin code on made-up tensors, before a model is loaded: every loss, advantage, quantity and module once."""
