"""Objectives on a chosen and a rejected response to one prompt."""
