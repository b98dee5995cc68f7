"""Prefect tasks and the Ray code that they start, one folder for each stage."""
