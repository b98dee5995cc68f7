"""Checkpoints: written, read, and imported from other implementations."""
