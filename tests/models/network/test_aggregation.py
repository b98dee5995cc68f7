from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.kernels import dispatch
from models.network import aggregation
from models.network.aggregation import BlockExtreme, LinearOfAll, NeighbourMax, NormalisedEdgeMax
from tests.models.network.test_graph import path as path  # the same two paths

FLOORS = [0.0, -torch.inf]


EPS = 1e-3


@pytest.fixture
def edges() -> tuple[Tensor, ...]:
    """x, w_centre, w_difference, bias, weight, shift; neighbours."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((9, 4), (19, 4), (19, 4), (19,), (19,), (19,))
    inputs = [torch.randn(s, dtype=torch.float64, generator=generator, requires_grad=True) for s in shapes]
    return *inputs, torch.randint(0, 9, (9, 4), generator=generator, dtype=torch.int32)


def plain(
    x: Tensor, w_centre: Tensor, w_difference: Tensor, bias: Tensor, weight: Tensor, shift: Tensor,
    neighbours: Tensor, floor: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    a, b = x @ w_centre.T + bias, x @ w_difference.T
    u = (a[:, None] + b[neighbours.long()]).clamp(min=floor)
    mean, variance = u.mean(dim=(0, 1)), u.var(dim=(0, 1), unbiased=False)
    return ((u - mean) / (variance + EPS).sqrt() * weight + shift).amax(dim=1), mean, variance


@pytest.mark.parametrize("floor", FLOORS)
def test_normalised_edge_max(
    path: str, edges: tuple[Tensor, ...], floor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(aggregation.ROWS_PER_CHUNK, "cpu", 4)
    assert (edges[4] < 0).any()
    found, expected = NormalisedEdgeMax.apply(*edges, floor, EPS), plain(*edges, floor)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("floor", FLOORS)
def test_normalised_edge_max_gradients(path: str, edges: tuple[Tensor, ...], floor: float) -> None:
    def largest(*inputs: Tensor) -> Tensor:
        return NormalisedEdgeMax.apply(*inputs, edges[6], floor, EPS)[0]

    assert torch.autograd.gradcheck(largest, edges[:6])
    grad = torch.randn((9, 19), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(largest(*edges[:6]), edges[:6], grad)
    expected = torch.autograd.grad(plain(*edges, floor)[0], edges[:6], grad)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rows", [4, 100])
def test_linear_of_all_layers(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(aggregation.ROWS_PER_PRODUCT, "cpu", rows)
    generator = torch.Generator().manual_seed(4)
    shapes = ((6, 7), (2, 7), (9, 3), (9, 4))
    inputs = [torch.randn(s, dtype=torch.float64, generator=generator, requires_grad=True) for s in shapes]
    found = LinearOfAll.apply(2, *inputs)
    every_layer = torch.cat(inputs[2:], dim=1)
    for product, weight in zip(found, inputs[:2], strict=True):
        torch.testing.assert_close(product, every_layer @ weight.T)
    assert torch.autograd.gradcheck(lambda *inputs: LinearOfAll.apply(2, *inputs), inputs)


def test_linear_of_layers_of_mixed_precision() -> None:
    """As autocast gives them: layers in bfloat16 and float32, float32 weights, the product in bfloat16."""
    generator = torch.Generator().manual_seed(4)
    halved = torch.randn((9, 3), generator=generator).bfloat16().requires_grad_()
    whole, weight = (torch.randn(s, generator=generator, requires_grad=True) for s in ((9, 4), (6, 7)))
    with torch.autocast("cpu", torch.bfloat16):
        (product,) = LinearOfAll.apply(1, weight, halved, whole)
    assert product.dtype == torch.bfloat16
    grad = torch.randn((9, 6), generator=generator).bfloat16()
    product.backward(grad)
    expected = torch.autograd.grad(
        torch.cat([halved.float(), whole], dim=1) @ weight.T, (weight, halved, whole), grad.float()
    )
    for tensor, exact in zip((weight, halved, whole), expected, strict=True):
        assert tensor.grad is not None
        assert tensor.grad.dtype == tensor.dtype
        torch.testing.assert_close(tensor.grad, exact)


def test_neighbour_max(path: str, edges: tuple[Tensor, ...]) -> None:
    x, neighbours = edges[0], edges[6]
    assert torch.equal(NeighbourMax.apply(x, neighbours), x[neighbours.long()].amax(dim=1))
    assert torch.autograd.gradcheck(lambda x: NeighbourMax.apply(x, neighbours), x)


@pytest.mark.parametrize("floor", FLOORS)
def test_block_extreme(floor: float) -> None:
    z = torch.randn(
        (9, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True
    )
    u = z.detach().clamp(min=floor)
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    extreme, mean, variance = BlockExtreme.apply(z.detach().clone(), [4, 1, 4], sign, floor)
    expected = torch.stack([(block * sign).amax(dim=0) * sign for block in u.split([4, 1, 4])])
    torch.testing.assert_close(extreme, expected)
    torch.testing.assert_close(mean, u.mean(dim=0))
    torch.testing.assert_close(variance, u.var(dim=0, correction=0))
    assert torch.autograd.gradcheck(lambda z: BlockExtreme.apply(z.clone(), [4, 1, 4], sign, floor), z)


def test_statistics_of_many_edges_are_not_summed_in_float32(path: str) -> None:
    generator = torch.Generator().manual_seed(1)
    a = torch.randn((20_000, 3), generator=generator) + 30
    neighbours = torch.randint(0, 20_000, (20_000, 16), generator=generator, dtype=torch.int32)
    inputs = [a, torch.eye(3), torch.eye(3), torch.zeros(3), torch.ones(3), torch.zeros(3)]
    _, mean, variance = NormalisedEdgeMax.apply(*inputs, neighbours, 0.0, EPS)
    _, exact_mean, exact_variance = plain(*(t.double() for t in inputs), neighbours, 0.0)
    assert (mean - exact_mean).abs().max() < 1e-5
    assert (variance / exact_variance - 1).abs().max() < 1e-4


def test_gradients_do_not_depend_on_threads() -> None:
    generator = torch.Generator().manual_seed(2)
    a = torch.randn((700, 40), generator=generator, requires_grad=True)
    neighbours = torch.randint(0, 700, (700, 8), generator=generator, dtype=torch.int32)
    before, gradients = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        eye = torch.eye(40)
        inputs = (a, eye, 2 * eye, torch.zeros(40), torch.ones(40), torch.zeros(40), neighbours)
        largest = NormalisedEdgeMax.apply(*inputs, 0.0, EPS)[0]
        gradients.append(torch.autograd.grad(largest.square().sum(), a)[0])
    torch.set_num_threads(before)
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


def test_kernels_serve_what_they_can() -> None:
    assert not dispatch.has_compiled_kernels(torch.zeros(1, dtype=torch.bfloat16))
    assert not dispatch.has_compiled_kernels(torch.zeros(1, device="meta"))
