"""Objectives that train a head, and the modules of those heads."""
