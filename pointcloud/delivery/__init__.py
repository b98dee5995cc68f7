"""The labelled cloud: written, proven to be the scan, and read back."""
