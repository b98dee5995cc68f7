"""Scans become blocks."""
