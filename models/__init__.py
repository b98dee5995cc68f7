"""The network, its kernels, its training and its weights. Neither Ray nor Prefect is needed here."""
