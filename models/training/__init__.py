"""The training loop without a cluster: steps, losses, exact sums over workers, saved state."""
