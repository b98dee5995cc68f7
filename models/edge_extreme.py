"""What batch norm and max leave of EdgeConv's edges: an extreme per point and channel, two sums per channel.

EdgeConv is linear before ReLU, W[x_i, x_j − x_i] = a_i + b_j, and batch norm is monotone per channel. So the
maximum over the neighbours after both is reached by the largest a_i + b_j, or, where batch norm's weight is
negative, by the smallest. The edges' values, P · K · C numbers, are passed over and never kept; backward
passes over them again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS_PER_CHUNK = 512


class EdgeExtreme(torch.autograd.Function):
    """u_ij = max(a_i + b_j, floor): its extreme over j, and its mean and variance over all edges ij.

    Args:
        a: (P, C), b: (P, C).
        neighbours: (P, K) int32 rows of b.
        sign: (C,) +1 where the largest u is wanted, −1 where the smallest.
        floor: 0 for ReLU before batch norm, −inf for none.

    Returns:
        (P, C) extreme over the neighbours, (C,) mean and (C,) biased variance over the P · K edges.
    """

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, neighbours: Tensor, sign: Tensor, floor: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        extreme, at = torch.empty_like(a), torch.empty_like(a, dtype=torch.uint8)
        # float64: over a few hundred thousand edges float32 sums cost a deep network its second digit.
        total = a.new_zeros(a.shape[1], dtype=torch.float64)
        total_squares = torch.zeros_like(total)
        for rows in torch.arange(len(a), device=a.device).split(ROWS_PER_CHUNK):
            u = (a[rows, None] + b[neighbours[rows]]).clamp(min=floor)
            total += u.sum(dim=(0, 1), dtype=torch.float64)
            total_squares += u.square().sum(dim=(0, 1), dtype=torch.float64)
            best = (u * sign).max(dim=1)
            extreme[rows], at[rows] = best.values * sign, best.indices.to(torch.uint8)
        mean = total / neighbours.numel()
        variance = total_squares / neighbours.numel() - mean.square()
        ctx.save_for_backward(a, b, neighbours, at, mean)
        ctx.floor = floor
        return extreme, mean.to(a.dtype), variance.clamp(min=0).to(a.dtype)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_extreme: Tensor, grad_mean: Tensor, grad_variance: Tensor
    ) -> tuple[Tensor, Tensor, None, None, None]:
        a, b, neighbours, at, mean = ctx.saved_tensors
        num_edges = neighbours.numel()
        # ∂mean/∂u = 1/n and ∂variance/∂u = 2 (u − mean)/n: one line, constant + slope · u, for every edge.
        slope = 2 * grad_variance / num_edges
        constant = grad_mean / num_edges - slope * mean.to(a.dtype)
        grad_a, grad_b = torch.empty_like(a), torch.zeros_like(b)
        for rows in torch.arange(len(a), device=a.device).split(ROWS_PER_CHUNK):
            z = a[rows, None] + b[neighbours[rows]]
            grad_z = constant + slope * z
            grad_z.scatter_add_(1, at[rows, None].long(), grad_extreme[rows, None])
            grad_z *= z > ctx.floor
            grad_a[rows] = grad_z.sum(dim=1)
            grad_b.index_add_(0, neighbours[rows].flatten(), grad_z.flatten(0, 1))
        return grad_a, grad_b, None, None, None
