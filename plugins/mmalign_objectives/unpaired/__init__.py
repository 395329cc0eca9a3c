"""Objectives on single stored responses with a label, a rating or an outcome."""
