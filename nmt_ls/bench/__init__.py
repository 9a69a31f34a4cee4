"""Measurements of this machine: each module has a function that measures and one that shows."""
