"""Labelled clouds are scored against the truth."""
