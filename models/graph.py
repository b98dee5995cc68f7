"""Dilated k nearest neighbours in feature space (ICCV paper, section 3.3), without an N × N matrix.

Two rules the papers leave open:

* **Small blocks.** A block of N < k·d points has no rank k·d − 1. There rank r becomes ⌊r·N / (k·d)⌋, the
  same share of the block; below k points some neighbours repeat.
* **Ties.** Of points at equal (rounded) distance the one with the lower index is nearer, on the CPU; on a GPU
  the order is the one `torch.topk` gives.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

ROWS_PER_CHUNK = 512
"""Rows of the distance matrix that the torch path holds at once."""


def strided_ranks(k: int, dilation: int) -> Tensor:
    """Ranks 0, d, 2d … (k of them) of the k·d nearest, nearest first. (K,) int64."""
    return torch.arange(k) * dilation


def stochastic_ranks(k: int, dilation: int) -> Tensor:
    """k of the k·d nearest drawn at random, nearest first (ICCV paper, section 3.3). (K,) int64."""
    return torch.randperm(k * dilation)[:k].sort().values


@torch.no_grad()
def neighbours(x: Tensor, ptr: list[int], ranks: Tensor, dilation: int) -> Tensor:
    """The neighbours at the given ranks, for every point among the points of its own block.

    Args:
        x: (P, C) float32 or float64 features of all blocks' points, block after block.
        ptr: (B + 1) first row of every block, and P.
        ranks: (K,) int64 ascending, each below K · dilation; rank 0 is the point itself (or its double).
        dilation: of the layer, for the small-block rule above.

    Returns:
        (P, K) int32 rows of x, nearest first.
    """
    found = x.new_empty((len(x), len(ranks)), dtype=torch.int32)
    reach = len(ranks) * dilation
    for start, end in pairwise(ptr):
        n = end - start
        block_ranks = (ranks if n >= reach else ranks * n // reach).to(x.device)
        block = x[start:end]
        squares = block.square().sum(dim=1)
        for rows in range(0, n, ROWS_PER_CHUNK):
            chunk = block[rows : rows + ROWS_PER_CHUNK]
            # |x_i|² is the same for a whole row and changes no order.
            distances = torch.addmm(squares, chunk, block.T, alpha=-2)
            nearest = distances.topk(int(block_ranks[-1]) + 1, dim=1, largest=False).indices
            found[start + rows : start + rows + len(chunk)] = nearest[:, block_ranks] + start
    return found
