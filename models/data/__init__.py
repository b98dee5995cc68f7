"""Blocks as a torch dataset: sampling, augmentation, batches."""
