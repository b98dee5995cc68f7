"""Dilated k nearest neighbours in feature space (ICCV paper, section 3.3), without an N × N matrix.

Two rules the papers leave open:

* **Small blocks.** A block of N < k·d points has no rank k·d − 1. There rank r becomes ⌊r·N / (k·d)⌋, the
  same share of the block; below k points some neighbours repeat.
* **Ties.** Of points at equal (rounded) distance the one with the lower index is nearer, on the CPU; on a GPU
  the order is the one `torch.topk` gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor

from models import kernels

DISTANCES_PER_CHUNK = {"cpu": 2**21, "cuda": 2**28}
"""Entries of the distance matrix that the torch path holds at once."""


def strided_ranks(k: int, dilation: int) -> Tensor:
    """Ranks 0, d, 2d … (k of them) of the k·d nearest, nearest first. (K,) int64."""
    return torch.arange(k) * dilation


def stochastic_ranks(k: int, dilation: int) -> Tensor:
    """k of the k·d nearest drawn at random, nearest first (ICCV paper, section 3.3). (K,) int64."""
    return torch.randperm(k * dilation)[:k].sort().values


@torch.no_grad()
def neighbours(x: Tensor, bounds: list[int], ranks: Tensor, dilation: int) -> Tensor:
    """The neighbours at the given ranks, for every point among the points of its own block.

    Distances are float32 (TF32 and autocast off) or, for float64 features, float64.

    Args:
        x: (P, C) features of all blocks' points, block after block.
        bounds: (B + 1) first row of every block, and P.
        ranks: (K,) int64 ascending, each below K · dilation; rank 0 is the point itself (or its double).
        dilation: of the layer, for the small-block rule above.

    Returns:
        (P, K) int32 rows of x, nearest first.
    """
    x = x.detach() if x.dtype == torch.float64 else x.detach().float()
    reach = len(ranks) * dilation
    sizes = torch.tensor(bounds).diff()[:, None]
    block_ranks = torch.where(sizes >= reach, ranks, ranks * sizes // reach)
    if kernels.serve(x):
        from models import kernels_knn

        return kernels_knn.search(x, bounds, block_ranks)
    return _search_torch(x, bounds, block_ranks)


def _search_torch(x: Tensor, bounds: list[int], block_ranks: Tensor) -> Tensor:
    """`neighbours` in torch: (P, K) int32 for block_ranks (B, K)."""
    found = x.new_empty((len(x), block_ranks.shape[1]), dtype=torch.int32)
    with _full_precision(x.device.type):
        for (start, end), ranks in zip(pairwise(bounds), block_ranks, strict=True):
            block = x[start:end]
            squares = block.square().sum(dim=1)
            step = max(1, DISTANCES_PER_CHUNK.get(x.device.type, 2**21) // len(block))
            for row in range(start, end, step):
                rows = x[row : min(row + step, end)]
                # |x_i|² is the same for a whole row and changes no order in it.
                distances = torch.addmm(squares, rows, block.T, alpha=-2)
                nearest = distances.topk(int(ranks[-1]) + 1, dim=1, largest=False).indices
                found[row : row + len(rows)] = nearest[:, ranks.to(x.device)] + start
    return found


@contextmanager
def _full_precision(device: str) -> Iterator[None]:
    """float32 products as float32: TF32 keeps 10 bits of a distance and changes a third of the neighbours."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
