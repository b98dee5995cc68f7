"""Dilated k nearest neighbours in feature space (ICCV paper, "Dilated Aggregation"), without an N × N matrix.

Two rules the papers leave open:

* **Small blocks.** A block of N < k·d points has no rank k·d − 1. There rank r becomes ⌊r·N / (k·d)⌋, the
  same share of the block; below k points some neighbours repeat.
* **Ties.** Of points at equal (rounded) distance the one with the lower index is nearer: so do the compiled
  kernels of the CPU and those of the GPU. Where neither serves the order is the one `torch.topk` gives.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import groupby, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels import dispatch

DISTANCES_PER_CHUNK = {"cpu": 2**21, "cuda": 2**28}
"""Entries of the distance matrix that the torch path holds at once."""
_GRID_DIMENSIONS = 3
FUSED_FROM = 512
"""Points of the largest block from which on the GPU's fused kernels search; below, one product and a top-k.

An estimate; `python -m benchmarks.network_table --device cuda` measures both sides.
"""


def strided_ranks(k: int, dilation: int) -> Tensor:
    """Ranks 0, d, 2d … (k of them) of the k·d nearest, nearest first. (K,) int64."""
    return torch.arange(k) * dilation


def stochastic_ranks(k: int, dilation: int) -> Tensor:
    """k of the k·d nearest drawn at random, nearest first ("stochastic" dilation). (K,) int64."""
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
    if dispatch.has_compiled_kernels(x):
        from models.kernels import knn_cpu

        return knn_cpu.search(x, bounds, block_ranks)
    if _uses_fused_kernels(x, bounds, block_ranks):
        from models.kernels import knn_triton

        with torch.cuda.device(x.device):
            return knn_triton.search(x, bounds, block_ranks)
    return _search_torch(x, bounds, block_ranks)


@torch.no_grad()
def nearest_points(coordinates: Tensor, bounds: list[int], reach: int) -> Tensor:
    """The `reach` nearest points of every point among the points of its own block, itself (or its double) first.

    On the CPU they are found in a grid, at a cost that grows with P and not with the square of a block.

    Args:
        coordinates: (P, D) of all blocks' points, block after block.
        bounds: (B + 1) first row of every block, and P.
        reach: number of nearest points, R.

    Returns:
        (P, R) int32 rows of coordinates, nearest first; in blocks of fewer points the last is repeated.
    """
    if coordinates.shape[1] <= _GRID_DIMENSIONS and dispatch.has_compiled_kernels(coordinates):
        from models.kernels import grid_cpu

        return grid_cpu.search(coordinates.detach().contiguous(), bounds, reach)
    smallest = min(end - start for start, end in pairwise(bounds))
    ranks = torch.arange(reach)
    if smallest >= reach:
        return neighbours(coordinates, bounds, ranks, 1)
    blocks = [
        start + neighbours(coordinates[start:end], [0, end - start], ranks[: end - start], 1)
        for start, end in pairwise(bounds)
    ]
    return torch.cat([F.pad(rows, (0, reach - rows.shape[1]), mode="replicate") for rows in blocks])


def ranks_of(nearest: Tensor, bounds: list[int], ranks: Tensor, dilation: int) -> Tensor:
    """The neighbours that `neighbours` finds, (P, K), among the nearest (P, R) that `nearest_points` found."""
    reach = len(ranks) * dilation
    sizes = torch.tensor(bounds).diff()
    if int(sizes.min()) >= reach:
        return nearest[:, ranks.to(nearest.device)].contiguous()
    of_block = torch.where(sizes[:, None] >= reach, ranks, ranks * sizes[:, None] // reach)
    of_point = of_block.repeat_interleave(sizes, dim=0).to(nearest.device)
    return nearest.gather(1, of_point)


def _uses_fused_kernels(x: Tensor, bounds: list[int], block_ranks: Tensor) -> bool:
    """Whether the Triton kernels search: float32 on a GPU, blocks from FUSED_FROM points, Triton installed."""
    if x.device.type != "cuda" or x.dtype != torch.float32 or not _triton_is_installed():
        return False
    if max(end - start for start, end in pairwise(bounds)) < FUSED_FROM:
        return False
    from models.kernels import knn_triton

    return knn_triton.supports(bounds, block_ranks)


@cache
def _triton_is_installed() -> bool:
    # torch's CUDA wheels bring it; builds of one's own and Windows may lack it.
    return importlib.util.find_spec("triton") is not None


def _search_torch(x: Tensor, bounds: list[int], block_ranks: Tensor) -> Tensor:
    """`neighbours` in torch: (P, K) int32 for block_ranks (B, K). Blocks of one size in a row are one product."""
    found = x.new_empty((len(x), block_ranks.shape[1]), dtype=torch.int32)
    room = DISTANCES_PER_CHUNK.get(x.device.type, 2**21)
    sizes = [end - start for start, end in pairwise(bounds)]
    first = 0
    with _full_precision(x.device.type):
        for size, run in groupby(sizes):
            num_blocks = len(list(run))
            per_product = max(1, room // size**2)
            ranks = block_ranks[first]
            for block in range(first, first + num_blocks, per_product):
                last = min(block + per_product, first + num_blocks)
                rows = slice(bounds[block], bounds[last])
                found[rows] = _search_equal(x[rows].view(-1, size, x.shape[1]), ranks, room) + bounds[block]
            first += num_blocks
    return found


def _search_equal(blocks: Tensor, ranks: Tensor, room: int) -> Tensor:
    """(B · N, K) rows of the flattened blocks (B, N, C) at ranks (K,), in products of about `room` distances."""
    num_blocks, size, _ = blocks.shape
    squares, wanted = blocks.square().sum(dim=2)[:, None], ranks.to(blocks.device)
    starts = torch.arange(num_blocks, device=blocks.device)[:, None, None] * size
    # |x_i|² is the same for a whole row and changes no order in it.
    nearest = [
        torch.baddbmm(squares, rows, blocks.mT, alpha=-2)
        .topk(int(ranks[-1]) + 1, largest=False)
        .indices[..., wanted]
        for rows in blocks.split(max(1, room // (num_blocks * size)), dim=1)
    ]
    return (torch.cat(nearest, dim=1) + starts).flatten(0, 1).int()


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
