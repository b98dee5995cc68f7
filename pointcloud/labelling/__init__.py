"""From the network's logits to a label for every point."""
