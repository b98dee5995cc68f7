"""The graph convolutions of the papers, on a table of neighbours: EdgeConv, MRConv, GraphSAGE, GIN.

All take x (P, C) and neighbours (P, K), rows of x, and give (P, C'). "Norm" is batch norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.network.aggregation import NeighbourMax, NormalisedEdgeMax
from models.network.configurations import Convolution


class BatchNorm(nn.BatchNorm1d):
    """Batch norm that one row leaves as it is: alone it has no variance, so it is normed as in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        """(P, C) -> (P, C)."""
        if len(x) > 1 or not self.training:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class Pointwise(nn.Module):
    """Linear, ReLU, norm on every row; norm before ReLU when `norm_first`. (P, C) -> (P, C')."""

    def __init__(
        self, in_channels: int, out_channels: int, *, norm_first: bool, norm_eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels)
        self.norm = BatchNorm(out_channels, eps=norm_eps)
        self.norm_first = norm_first
        nn.init.kaiming_normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Features (P, C_out) of the points (P, C_in)."""
        return self.activate(self.linear(x))

    def activate(self, z: Tensor) -> Tensor:
        """What follows the product."""
        return F.relu_(self.norm(z)) if self.norm_first else self.norm(F.relu_(z))

    def sign(self) -> Tensor:
        """(C',) −1 where norm's weight is negative, and the largest of many becomes the smallest; else +1."""
        weight = self.norm.weight.detach()
        return torch.where(weight < 0, -1.0, 1.0).to(weight.dtype)

    def normalise(self, extreme: Tensor, mean: Tensor, variance: Tensor, *, count: int) -> Tensor:
        """What `activate` in training makes of the extreme of `count` values, given their statistics."""
        norm = self.norm
        track(norm, mean, variance, count=count)
        scale = norm.weight * (variance + norm.eps).rsqrt()
        normed = torch.addcmul(norm.bias - mean * scale, extreme, scale)
        return F.relu_(normed) if self.norm_first else normed


@torch.no_grad()
def track(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, *, count: int) -> None:
    """Running statistics, as `nn.BatchNorm1d` keeps them (unbiased variance)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (count / max(count - 1, 1)), norm.momentum)
    norm.num_batches_tracked.add_(1)


@contextmanager
def untracked(layer: nn.Module) -> Iterator[None]:
    """Running statistics stay as they are: what is made again has been counted once."""
    norms = [module for module in layer.modules() if isinstance(module, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    counts = [
        None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms
    ]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)


class EdgeConv(nn.Module):
    """max_j norm(ReLU(W [x_i, x_j − x_i] + bias)), norm over all P · K edges (ICCV paper, EdgeConv)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, norm_first: bool, norm_eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.nn = Pointwise(2 * in_channels, out_channels, norm_first=norm_first, norm_eps=norm_eps)

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """Features (P, C) of the points from their own (P, C_in) and those of `neighbours` (P, K)."""
        # W [x_i, x_j − x_i] = (W₁ − W₂) x_i + W₂ x_j: two products of P rows instead of one of P · K.
        w_centre, w_difference = self.nn.linear.weight.chunk(2, dim=1)
        w_centre = w_centre - w_difference
        linear, norm = self.nn.linear, self.nn.norm
        if not self.training or len(x) == 1:  # one point's edges are all the same
            sign = self.nn.sign()
            signed = NeighbourMax.apply(F.linear(x, w_difference * sign[:, None]), neighbours)
            return self.nn.activate(torch.addcmul(F.linear(x, w_centre, linear.bias), signed, sign))
        floor = -torch.inf if self.nn.norm_first else 0.0
        with torch.autocast(x.device.type, enabled=False):
            largest, mean, variance = NormalisedEdgeMax.apply(
                x.to(w_centre.dtype), w_centre, w_difference, linear.bias, norm.weight, norm.bias, neighbours,
                floor, norm.eps,
            )  # fmt: skip
        track(norm, mean, variance, count=neighbours.numel())
        return F.relu_(largest) if self.nn.norm_first else largest


class MRConv(nn.Module):
    """Max-relative: norm(ReLU(W [x_i, max_j (x_j − x_i)] + bias)) (TPAMI paper, MRGCN)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, norm_first: bool, norm_eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.nn = Pointwise(2 * in_channels, out_channels, norm_first=norm_first, norm_eps=norm_eps)

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """Features (P, C) of the points from their own (P, C_in) and those of `neighbours` (P, K)."""
        relative = NeighbourMax.apply(x, neighbours) - x
        return self.nn(torch.cat([x, relative], dim=1))


class GraphSAGE(nn.Module):
    """norm(ReLU(W [x_i, max_j h_j] + bias)), h = norm(ReLU(W' x + bias')); norms over points (TPAMI)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, norm_first: bool, norm_eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.nn = Pointwise(2 * in_channels, out_channels, norm_first=norm_first, norm_eps=norm_eps)
        self.pool = Pointwise(in_channels, in_channels, norm_first=norm_first, norm_eps=norm_eps)

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """Features (P, C) of the points from their own (P, C_in) and those of `neighbours` (P, K)."""
        pooled = NeighbourMax.apply(self.pool(x), neighbours)
        return self.nn(torch.cat([x, pooled], dim=1))


class GIN(nn.Module):
    """norm(ReLU(W [(1 + ε) x_i + Σ_j x_j] + bias)), ε learnt (TPAMI paper)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, norm_first: bool, norm_eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.nn = Pointwise(in_channels, out_channels, norm_first=norm_first, norm_eps=norm_eps)
        self.epsilon = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """Features (P, C) of the points from their own (P, C_in) and those of `neighbours` (P, K)."""
        return self.nn((1 + self.epsilon) * x + F.embedding_bag(neighbours, x, mode="sum"))


CONVOLUTIONS: dict[Convolution, type[EdgeConv] | type[MRConv] | type[GraphSAGE] | type[GIN]] = {
    "edge": EdgeConv,
    "mr": MRConv,
    "sage": GraphSAGE,
    "gin": GIN,
}
