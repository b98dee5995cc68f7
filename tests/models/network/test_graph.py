"""Neighbours are compared by the distances at their ranks: of equally near points indices say nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from models.kernels import dispatch
from models.network import graph
from models.network.graph import neighbours, stochastic_ranks, strided_ranks

PATHS = {"compiled": True, "torch": False}


@pytest.fixture(params=PATHS, ids=str)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if not PATHS[request.param]:
        monkeypatch.setattr(dispatch, "has_compiled_kernels", lambda x: False)
    elif not dispatch.has_compiled_kernels(torch.zeros(1)):
        pytest.skip("numba is not installed")
    return request.param


def distance_gap(x: Tensor, bounds: list[int], ranks: Tensor, found: Tensor) -> float:
    """Largest difference to the true distance at a rank, as a part of the block's largest |x|²."""
    worst = 0.0
    for start, end in pairwise(bounds):
        block = x[start:end].double()
        distances = torch.cdist(block, block, compute_mode="donot_use_mm_for_euclid_dist").square()
        expected = distances.sort(dim=1).values[:, ranks]
        local = found[start:end].long() - start
        assert local.min() >= 0
        assert local.max() < end - start
        gap = (distances.gather(1, local) - expected).abs().max() / block.square().sum(dim=1).max()
        worst = max(worst, gap.item())
    return worst


@pytest.mark.parametrize("num_points", [16, 17, 500, 1023, 1500])
@pytest.mark.parametrize("dilation", [1, 3, 27])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
def test_distances_at_the_ranks(
    path: str, num_points: int, dilation: int, dtype: torch.dtype, tolerance: float
) -> None:
    x = torch.randn((num_points, 20), dtype=dtype, generator=torch.Generator().manual_seed(num_points))
    ranks = strided_ranks(16, dilation)
    found = neighbours(x, [0, num_points], ranks, dilation)
    if num_points < 16 * dilation:
        ranks = ranks * num_points // (16 * dilation)
    assert distance_gap(x, [0, num_points], ranks, found) < tolerance


@pytest.mark.parametrize(
    "features",
    ["far out", "few values", "doubles", "all equal", "sorted"],
)
def test_features_that_defeat_a_limit_or_a_bin(path: str, features: str) -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn((2000, 6), generator=generator)
    if features == "far out":
        x = x * torch.logspace(0, 5, 2000)[:, None]
    elif features == "few values":
        x = x.round()
    elif features == "doubles":
        x = x[torch.randint(0, 90, (2000,), generator=generator)]
    elif features == "all equal":
        x = torch.ones_like(x)
    else:
        x = x.sort(dim=0).values
    ranks = strided_ranks(16, 9)
    assert distance_gap(x, [0, 2000], ranks, neighbours(x, [0, 2000], ranks, 9)) < 2e-6


def test_blocks_keep_to_themselves(path: str) -> None:
    bounds = [0, 400, 401, 1700, 1703]
    x = torch.randn((1703, 5), generator=torch.Generator().manual_seed(5))
    found = neighbours(x, bounds, strided_ranks(8, 4), 4)
    for start, end in pairwise(bounds):
        assert torch.equal(
            found[start:end], neighbours(x[start:end], [0, end - start], strided_ranks(8, 4), 4) + start
        )


def test_small_blocks_take_the_same_share(path: str) -> None:
    """N = 10 on a line, k·d = 20: ranks 0, 4, 8, 12, 16 of 20 become 0, 2, 4, 6, 8 of 10."""
    x = torch.arange(10.0)[:, None].square()
    found = neighbours(x, [0, 10], strided_ranks(5, 4), 4)
    assert found[0].tolist() == [0, 2, 4, 6, 8]
    assert neighbours(x[:2], [0, 2], strided_ranks(5, 4), 4)[0].tolist() == [0, 0, 0, 1, 1]


def test_ties_go_to_the_lower_index() -> None:
    if not dispatch.has_compiled_kernels(torch.zeros(1)):
        pytest.skip("numba is not installed; torch.topk has its own order")
    x = torch.tensor([0.0, 1.0, -1.0, 1.0, -1.0, 2.0])[:, None].repeat(300, 1)
    found = neighbours(x, [0, 1800], strided_ranks(16, 1), 1)
    assert found[0].tolist() == list(range(0, 96, 6))
    assert found[5].tolist() == list(range(5, 96, 6))
    ones = neighbours(x, [0, 1800], torch.tensor([299, 300, 301]), 400)
    assert ones[0].tolist() == [1794, 1, 2]


def test_infinite_features_do_not_crash(path: str) -> None:
    x = torch.randn((1500, 4))
    x[7] = torch.nan
    x[9] = 1e30
    found = neighbours(x, [0, 1500], strided_ranks(16, 2), 2)
    assert found.min() >= 0
    assert found.max() < 1500


def test_both_paths_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn((1300, 12), dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    ranks = strided_ranks(16, 5)
    compiled = neighbours(x, [0, 1300], ranks, 5)
    monkeypatch.setattr(dispatch, "has_compiled_kernels", lambda x: False)
    monkeypatch.setitem(graph.DISTANCES_PER_CHUNK, "cpu", 130_000)
    assert torch.equal(neighbours(x, [0, 1300], ranks, 5), compiled)


@pytest.mark.parametrize("room", [2**21, 90_000, 20_000, 1])
def test_blocks_of_one_size_are_searched_together(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """However many distances fit: several blocks, one block, some of its rows, one row."""
    monkeypatch.setattr(dispatch, "has_compiled_kernels", lambda x: False)
    bounds = [0, 200, 400, 600, 630, 830]
    x = torch.randn((830, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    ranks = strided_ranks(8, 4)
    expected = [
        neighbours(x[start:end], [0, end - start], ranks, 4) + start for start, end in pairwise(bounds)
    ]
    monkeypatch.setitem(graph.DISTANCES_PER_CHUNK, "cpu", room)
    assert torch.equal(neighbours(x, bounds, ranks, 4), torch.cat(expected))


def test_threads_change_nothing() -> None:
    x = torch.randn((1500, 12), generator=torch.Generator().manual_seed(8))
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(neighbours(x, [0, 700, 1500], strided_ranks(16, 5), 5))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_stochastic_ranks_are_some_of_the_nearest() -> None:
    torch.manual_seed(0)
    draws = torch.stack([stochastic_ranks(16, 3) for _ in range(200)])
    assert draws.min() == 0
    assert draws.max() == 47
    assert (draws.diff(dim=1) > 0).all()
    assert len(draws.unique(dim=0)) > 190
    assert strided_ranks(4, 3).tolist() == [0, 3, 6, 9]
