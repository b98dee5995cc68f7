"""Compiled kernels for the CPU and the GPU, and the choice between them."""
