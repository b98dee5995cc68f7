"""Every point of a collection of scans gets a label."""
