"""From decoded points to the blocks that the network sees, the same in training and in segmentation."""
