"""The network, its graph, its training step, its predictor: torch and torch-geometric only."""
