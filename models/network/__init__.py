"""DeepGCN as in the paper: graph, convolutions, backbone, and the table of ablations."""
