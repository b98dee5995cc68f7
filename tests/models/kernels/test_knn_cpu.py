"""The k nearest neighbours of the CPU kernel against distances in a full matrix."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from models.kernels import knn_cpu


@pytest.mark.parametrize("sizes", [(1,), (3, 40), (knn_cpu.SAMPLED_FROM + 77, 5, 300)], ids=str)
@pytest.mark.parametrize("num_channels", [1, 3, 64])
def test_the_points_at_the_ranks_are_those_of_the_full_matrix(
    sizes: tuple[int, ...], num_channels: int
) -> None:
    bounds = [0, *torch.tensor(sizes).cumsum(0).tolist()]
    generator = torch.Generator().manual_seed(3)
    x = torch.randn((bounds[-1], num_channels), dtype=torch.float64, generator=generator)
    ranks = torch.stack([torch.arange(0, 24, 3).clamp(max=size - 1) for size in sizes])
    neighbours = knn_cpu.search(x, bounds, ranks)
    assert neighbours.dtype == torch.int32
    for (start, end), ranks_of_block in zip(pairwise(bounds), ranks, strict=True):
        block = x[start:end]
        order = torch.cdist(block, block, compute_mode="donot_use_mm_for_euclid_dist").argsort(dim=1)
        assert torch.equal(neighbours[start:end].long(), order[:, ranks_of_block] + start)


def test_of_equal_distances_the_lower_row_is_nearer() -> None:
    x = torch.zeros((knn_cpu.SAMPLED_FROM + 10, 2))
    neighbours = knn_cpu.search(x, [0, len(x)], torch.tensor([[0, 1, 9]]))
    assert (neighbours == torch.tensor([0, 1, 9])).all()
