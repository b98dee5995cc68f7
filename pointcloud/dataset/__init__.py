"""A dataset of blocks on disk: how it is cut, split, stored and described."""
