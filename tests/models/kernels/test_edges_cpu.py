"""EdgeConv's passes over the edges against the same sums written with all edges in memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.kernels.edges_cpu import (
    edge_extremes,
    edge_gradients,
    extreme_sums,
    neighbour_largest,
    neighbour_max,
)

P, C, K = 150, 19, 5  # more than one stretch of points, and a last one of channels that is not full
FLOORS = [0.0, -torch.inf]


@pytest.fixture
def edges() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """a (P, C), b (P, C), neighbours (P, K), sign (C,)."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn((2, P, C), dtype=torch.float64, generator=generator)
    neighbours = torch.randint(0, P, (P, K), generator=generator, dtype=torch.int32)
    return a, b, neighbours, torch.where(torch.arange(C) % 3 == 0, -1.0, 1.0).double()


def test_the_first_of_the_largest_neighbours_is_named() -> None:
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0], [3.0, 0.0]])
    largest, at = neighbour_max(x, torch.tensor([[0, 1, 2], [2, 1, 0], [2, 2, 2]], dtype=torch.int32))
    assert largest.tolist() == [[3.0, 5.0], [3.0, 5.0], [3.0, 0.0]]
    assert at.tolist() == [[1, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize("floor", FLOORS)
def test_extremes_and_sums(edges: tuple[Tensor, Tensor, Tensor, Tensor], floor: float) -> None:
    a, b, neighbours, sign = edges
    u = (a[:, None] + b[neighbours.long()]).clamp(min=floor)
    extreme, at, sums = edge_extremes(a, b, neighbours, sign, floor)
    assert torch.equal(extreme, (u * sign).amax(dim=1) * sign)
    assert torch.equal(u.gather(1, at.long()[:, None])[:, 0], extreme)
    torch.testing.assert_close(sums, torch.stack([u.sum(dim=(0, 1)), u.square().sum(dim=(0, 1))]))


@pytest.mark.parametrize("floor", FLOORS)
def test_gradients(edges: tuple[Tensor, Tensor, Tensor, Tensor], floor: float) -> None:
    a, b, neighbours, sign = edges
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn((P, C), dtype=torch.float64, generator=generator)
    scale, constant, slope = torch.randn((3, C), dtype=torch.float64, generator=generator)
    extreme, at, _ = edge_extremes(a, b, neighbours, sign, floor)

    grad_sum, weighted = extreme_sums(a, b, neighbours, at, grad, floor)
    torch.testing.assert_close(grad_sum, grad.sum(dim=0))
    torch.testing.assert_close(weighted, (grad * extreme).sum(dim=0))

    z = a[:, None] + b[neighbours.long()]
    grad_z = (constant + slope * z).masked_fill(z <= floor, 0)
    of_extreme = (grad * scale).masked_fill(extreme <= floor, 0)
    grad_z.scatter_add_(1, at.long()[:, None], of_extreme[:, None])
    grad_a, grad_b = edge_gradients(a, b, neighbours, at, grad, scale, constant, slope, floor)
    torch.testing.assert_close(grad_a, grad_z.sum(dim=1))
    expected = torch.zeros_like(b).index_add_(0, neighbours.long().flatten(), grad_z.flatten(0, 1))
    torch.testing.assert_close(grad_b, expected)


@pytest.mark.parametrize(("num_channels", "k"), [(1, 1), (7, 2), (32, 16), (33, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_alone_is_that_of_the_kernel_of_training(
    num_channels: int, k: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(6)
    x = torch.randn((90, num_channels), generator=generator, dtype=dtype)
    neighbours = torch.randint(0, 90, (90, k), generator=generator, dtype=torch.int32)
    largest, at = neighbour_max(x, neighbours)
    assert torch.equal(neighbour_largest(x, neighbours), largest)
    assert torch.equal(x[neighbours.long()].amax(dim=1), largest)
    assert torch.equal(x.gather(0, neighbours.gather(1, at.long()).long()), largest)
