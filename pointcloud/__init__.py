"""Scans, tiles, blocks, labels, merging: numpy, pyarrow and laspy only."""
