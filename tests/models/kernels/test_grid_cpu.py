"""Neighbours found in a grid against those of all distances."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
import torch

from models.kernels import grid_cpu


def brute(xyz: torch.Tensor, bounds: list[int], reach: int) -> torch.Tensor:
    rows = []
    for start, end in pairwise(bounds):
        block = xyz[start:end].double()
        distance = (block[:, None] - block[None]).square().sum(dim=2)
        order = distance.sort(dim=1, stable=True).indices[:, :reach] + start
        last = order[:, -1:].expand(-1, reach - order.shape[1])
        rows.append(torch.cat([order, last], dim=1))
    return torch.cat(rows)


@pytest.mark.parametrize("sizes", [(1,), (3, 40), (1500, 17, 300)], ids=str)
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("reach", [1, 16, 48])
def test_the_nearest_are_those_of_all_distances(sizes: tuple[int, ...], dimensions: int, reach: int) -> None:
    bounds = [0, *torch.tensor(sizes).cumsum(0).tolist()]
    xyz = torch.randn(
        (bounds[-1], dimensions), dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    nearest = grid_cpu.search(xyz, bounds, reach)
    assert nearest.dtype == torch.int32
    assert torch.equal(nearest.long(), brute(xyz, bounds, reach))


def test_of_equal_distances_the_lower_row_is_nearer() -> None:
    side = torch.arange(12.0)
    grid = torch.cartesian_prod(side, side, torch.arange(3.0))
    grid = torch.cat([grid, grid[:50]])  # doubles, too
    assert torch.equal(grid_cpu.search(grid, [0, len(grid)], 20).long(), brute(grid, [0, len(grid)], 20))


def test_clusters_of_all_densities_and_points_far_out() -> None:
    generator = torch.Generator().manual_seed(2)
    parts = [
        torch.randn((300, 3), generator=generator, dtype=torch.float64) * scale for scale in (1e-3, 1, 500)
    ]
    far = torch.tensor([[1e6, 0, 0], [0, -1e6, 0], [1e6, 1e-3, 0]], dtype=torch.float64)
    xyz = torch.cat([*parts, far])
    assert torch.equal(grid_cpu.search(xyz, [0, len(xyz)], 16).long(), brute(xyz, [0, len(xyz)], 16))


def test_the_cost_grows_with_the_points_not_with_their_square() -> None:
    def seconds(num_points: int) -> float:
        edge = num_points**0.5
        xyz = torch.rand((num_points, 3)) * torch.tensor([edge, edge, 1.0])
        grid_cpu.search(xyz, [0, num_points], 16)
        began = time.process_time()
        grid_cpu.search(xyz, [0, num_points], 16)
        return time.process_time() - began

    assert seconds(160_000) < 40 * seconds(10_000)  # by the square: 256 times
