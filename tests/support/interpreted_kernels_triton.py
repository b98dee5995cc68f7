"""What the GPU's kernels find, in Triton's interpreter; test_kernels_triton.py runs this with TRITON_INTERPRET=1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.kernels import dispatch, knn_triton
from models.network import graph
from models.network.graph import stochastic_ranks, strided_ranks
from tests.models.network.test_graph import distance_gap


@pytest.fixture(autouse=True)
def large_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's time is by programs, not by elements."""
    monkeypatch.setattr(knn_triton, "PICK_ELEMENTS", 2**14)
    monkeypatch.setattr(knn_triton, "LIMIT_ROWS", knn_triton.ROWS)


def random(num_points: int, channels: int) -> Tensor:
    return torch.randn((num_points, channels), generator=torch.Generator().manual_seed(num_points))


def search(x: Tensor, bounds: list[int], ranks: Tensor) -> Tensor:
    return knn_triton.search(x, bounds, ranks.expand(len(bounds) - 1, -1).contiguous())


def by_sorting(x: Tensor, ranks: Tensor) -> Tensor:
    """Exact neighbours of one block of whole numbers: of equal distances the lower row is nearer."""
    distances = (x[:, None].double() - x[None].double()).square().sum(dim=2)
    return distances.sort(dim=1, stable=True).indices[:, ranks].int()


@pytest.mark.parametrize(
    ("num_points", "channels", "bounds", "k", "dilation"),
    [
        (300, 3, [0, 300], 8, 3),
        (700, 64, [0, 190, 250, 700], 8, 5),
        (700, 40, [0, 700], 16, 1),
    ],
)
def test_distances_at_the_ranks(
    num_points: int, channels: int, bounds: list[int], k: int, dilation: int
) -> None:
    x, ranks = random(num_points, channels), strided_ranks(k, dilation)
    found = search(x, bounds, ranks)
    assert distance_gap(x, bounds, ranks, found) < 2e-6
    plain = graph._search_torch(x, bounds, ranks.expand(len(bounds) - 1, -1))
    assert (found != plain).float().mean() < 1e-3


def test_any_ascending_ranks() -> None:
    torch.manual_seed(1)
    x, ranks = random(500, 6), stochastic_ranks(16, 7)
    assert distance_gap(x, [0, 500], ranks, search(x, [0, 500], ranks)) < 2e-6


def test_equal_distances_go_to_the_lower_row() -> None:
    """Whole numbers, so that every distance is exact: 5³ places for 400 points, and all points at one place."""
    x = torch.randint(0, 5, (400, 3), generator=torch.Generator().manual_seed(2)).float()
    ranks = strided_ranks(16, 2)
    assert torch.equal(search(x, [0, 400], ranks), by_sorting(x, ranks))
    ones = search(torch.ones((300, 3)), [0, 300], torch.tensor([0, 1, 77]))
    assert ones.unique(dim=0).tolist() == [[0, 1, 77]]


@pytest.mark.parametrize("wanted", [1, 250])
def test_rows_whose_limit_was_wrong_are_done_again(wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit far too near, then one far too far."""
    x, ranks = random(330, 5), strided_ranks(16, 4)
    monkeypatch.setattr(knn_triton, "_room", lambda bounds, last, num_samples: ([wanted], 256))
    assert distance_gap(x, [0, 330], ranks, search(x, [0, 330], ranks)) < 2e-6


def test_rows_in_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, ranks, bounds = random(400, 4), strided_ranks(8, 2), [0, 100, 400]
    together = search(x, bounds, ranks)
    monkeypatch.setattr(knn_triton, "CANDIDATES_PER_CHUNK", 2 * knn_triton.ROWS * 256)
    assert torch.equal(search(x, bounds, ranks), together)


def test_blocks_smaller_than_k() -> None:
    """`models.network.graph` gives such a block ranks that repeat."""
    x = torch.arange(5.0)[:, None].square()
    found = knn_triton.search(x, [0, 2, 5], torch.tensor([[0, 0, 0, 1, 1], [0, 0, 1, 1, 2]]))
    assert found[0].tolist() == [0, 0, 0, 1, 1]
    assert found[2].tolist() == [2, 2, 3, 3, 4]


def test_nan_and_infinity_do_not_crash() -> None:
    x = random(400, 4)
    x[7], x[9] = torch.nan, 1e30
    found = search(x, [0, 400], strided_ranks(8, 2))
    assert found.min() >= 0
    assert found.max() < 400


def test_it_is_what_the_cpus_kernel_finds() -> None:
    if not dispatch.has_compiled_kernels(torch.zeros(1)):
        pytest.skip("numba is not installed")
    from models.kernels import knn_cpu

    x = torch.randint(0, 4, (450, 8), generator=torch.Generator().manual_seed(3)).float()
    ranks = strided_ranks(16, 3).expand(2, -1).contiguous()
    assert torch.equal(knn_triton.search(x, [0, 200, 450], ranks), knn_cpu.search(x, [0, 200, 450], ranks))
