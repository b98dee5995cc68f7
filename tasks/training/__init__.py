"""A network is trained on Ray workers."""
