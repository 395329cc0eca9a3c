"""Objectives on all responses to a prompt, or on a list of items within one."""
