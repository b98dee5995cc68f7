"""Maxima over the neighbours and over a block, without a tensor of edges or of every layer's features.

EdgeConv is linear before ReLU, W[x_i, x_j − x_i] = a_i + b_j, and batch norm is monotone per channel. So the
maximum over the neighbours after both is reached by the largest a_i + b_j, or, where batch norm's weight is
negative, by the smallest. The edges' values, P · K · C numbers, are passed over and never kept; backward
passes over them again.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels import dispatch

ROWS_PER_CHUNK = {"cpu": 512, "cuda": 16_384}
"""Points whose edges exist at once where there is no compiled kernel."""

ROWS_PER_PRODUCT = {"cpu": 1024}
"""Points whose features of all layers exist side by side at once; all of a GPU's."""


class NeighbourMax(torch.autograd.Function):
    """max_j x_j: x (P, C), neighbours (P, K), rows of x -> (P, C). Of equals the first gets the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, neighbours: Tensor) -> Tensor:
        """Compute the outputs and keep what `backward` needs."""
        if dispatch.has_compiled_kernels(x):
            from models.kernels import edges_cpu

            if not ctx.needs_input_grad[0]:
                return edges_cpu.neighbour_largest(x, neighbours)
            largest, at = edges_cpu.neighbour_max(x, neighbours)
        else:
            largest, at = torch.empty_like(x), torch.empty_like(x, dtype=torch.uint8)
            for rows, nearby in _chunks(neighbours):
                best = x[nearby].max(dim=1)
                largest[rows], at[rows] = best.values, best.indices.to(torch.uint8)
        ctx.save_for_backward(neighbours, at)
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Gradients of the inputs, None for what has none."""
        neighbours, at = ctx.saved_tensors
        return torch.zeros_like(grad).scatter_add_(0, neighbours.long().gather(1, at.long()), grad), None


class NormalisedEdgeMax(torch.autograd.Function):
    """max_j norm(u_ij), u_ij = max(a_i + b_j, floor), norm with the mean and variance of all edges ij.

    a = w_centre x + bias and b = w_difference x are made again on the way back, and the extremes from them:
    what training keeps of a layer is x and where the extremes were.

    Args:
        x: (P, C) features, w_centre: (C', C), w_difference: (C', C), bias: (C',).
        weight, shift: (C',) of the batch norm; eps: what it adds to the variance.
        neighbours: (P, K) int32 rows of x.
        floor: 0 for ReLU before batch norm, −inf for none.

    Returns:
        (P, C') maxima; (C',) mean and (C',) biased variance over the P · K edges, without gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w_centre: Tensor,
        w_difference: Tensor,
        bias: Tensor,
        weight: Tensor,
        shift: Tensor,
        neighbours: Tensor,
        floor: float,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the outputs and keep what `backward` needs."""
        a, b = F.linear(x, w_centre, bias), F.linear(x, w_difference)
        sign = torch.where(weight < 0, -1.0, 1.0).to(weight.dtype)
        if dispatch.has_compiled_kernels(a):
            from models.kernels import edges_cpu

            extreme, at, sums = edges_cpu.edge_extremes(a, b, neighbours, sign, floor)
        else:
            extreme, at = torch.empty_like(a), torch.empty_like(a, dtype=torch.uint8)
            sums = a.new_zeros((2, a.shape[1]), dtype=torch.float64)
            for rows, nearby in _chunks(neighbours):
                u = (a[rows, None] + b[nearby]).clamp(min=floor)
                best = (u * sign).max(dim=1)
                extreme[rows], at[rows] = best.values * sign, best.indices.to(torch.uint8)
                sums += torch.stack([u.double().sum(dim=(0, 1)), u.double().square().sum(dim=(0, 1))])
        # float64: over some hundred thousand edges float32 sums cost a deep network its second digit.
        mean, mean_square = sums / neighbours.numel()
        variance = (mean_square - mean.square()).clamp(min=0).to(a.dtype)
        mean = mean.to(a.dtype)
        ctx.save_for_backward(x, w_centre, w_difference, bias, weight, neighbours, at, mean, variance)
        ctx.floor, ctx.eps = floor, eps
        ctx.mark_non_differentiable(mean, variance)
        scale = weight * (variance + eps).rsqrt()
        return torch.addcmul(shift - mean * scale, extreme, scale, out=extreme), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the inputs, None for what has none."""
        x, w_centre, w_difference, bias, weight, neighbours, at, mean, variance = ctx.saved_tensors
        a, b = F.linear(x, w_centre, bias), F.linear(x, w_difference)
        if dispatch.has_compiled_kernels(a):
            from models.kernels import edges_cpu

            grad_shift, grad_times_extreme = edges_cpu.extreme_sums(a, b, neighbours, at, grad, ctx.floor)
        else:
            index = neighbours.long().gather(1, at.long())
            extreme = (a + b.gather(0, index)).clamp(min=ctx.floor)
            grad_shift, grad_times_extreme = grad.sum(dim=0), (grad * extreme).sum(dim=0)
        # Batch norm's way back (Ioffe and Szegedy 2015): the mean and the variance pull at every edge.
        # ∂mean/∂u = 1/n and ∂variance/∂u = 2 (u − mean)/n: one line, constant + slope · u.
        num_edges, deviation = neighbours.numel(), (variance + ctx.eps).rsqrt()
        scale = weight * deviation
        grad_weight = (grad_times_extreme - mean * grad_shift) * deviation
        slope = -scale * deviation * grad_weight / num_edges
        constant = -scale * grad_shift / num_edges - slope * mean
        if dispatch.has_compiled_kernels(a):
            grad_a, grad_b = edges_cpu.edge_gradients(
                a, b, neighbours, at, grad, scale, constant, slope, ctx.floor
            )
        else:
            grad_a, grad_b = grad * scale * (extreme > ctx.floor), torch.zeros_like(b)
            grad_b.scatter_add_(0, index, grad_a)
            for rows, nearby in _chunks(neighbours):
                z = a[rows, None] + b[nearby]
                grad_z = (constant + slope * z) * (z > ctx.floor)
                grad_a[rows] += grad_z.sum(dim=1)
                grad_b.index_add_(0, nearby.flatten(), grad_z.flatten(0, 1))
        grad_x = torch.addmm(grad_a @ w_centre, grad_b, w_difference)
        grad_bias = grad_a.sum(dim=0)
        return grad_x, grad_a.T @ x, grad_b.T @ x, grad_bias, grad_weight, grad_shift, None, None, None


class LinearOfAll(torch.autograd.Function):
    """[h_1 … h_L] W: every layer's features side by side, which exist so for some points at a time only.

    Args:
        weights: (C', ΣC) of every product wanted, first; biases are added by others.
        features: every layer's (P, C).

    Returns:
        (P, C') for every weight.
    """

    @staticmethod
    def forward(ctx: Any, num_weights: int, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs and keep what `backward` needs."""
        weights, features = inputs[:num_weights], inputs[num_weights:]
        num_points = len(features[0])
        step = ROWS_PER_PRODUCT.get(features[0].device.type, num_points)
        products: list[Tensor] = []
        for start in range(0, num_points, step):
            rows = slice(start, start + step)
            every_layer = torch.cat([layer[rows] for layer in features], dim=1)
            for n, weight in enumerate(weights):
                product = F.linear(every_layer, weight)
                if start == 0:  # its dtype is autocast's to choose
                    products.append(product.new_empty((num_points, len(weight))))
                products[n][rows] = product
        ctx.save_for_backward(*inputs)
        ctx.num_weights = num_weights
        return tuple(products)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the inputs, None for what has none."""
        weights, features = ctx.saved_tensors[: ctx.num_weights], ctx.saved_tensors[ctx.num_weights :]
        grads = tuple(grad.to(weight.dtype) for grad, weight in zip(grads, weights, strict=True))
        grad_weights = [torch.empty_like(weight) for weight in weights]
        grad_features, begin = [], 0
        for layer in features:
            columns = slice(begin, begin := begin + layer.shape[1])
            # Under autocast a layer may be bfloat16 beside float32 weights; no product mixes the two here.
            features_of_layer = layer.to(weights[0].dtype)
            grad_layer = torch.zeros_like(features_of_layer)
            for grad, weight, grad_weight in zip(grads, weights, grad_weights, strict=True):
                grad_layer.addmm_(grad, weight[:, columns])
                torch.mm(grad.T, features_of_layer, out=grad_weight[:, columns])
            grad_features.append(grad_layer.to(layer.dtype))
        return None, *grad_weights, *grad_features


class BlockExtreme(torch.autograd.Function):
    """Of u = max(z, floor) the extreme over every block, and mean and biased variance over all points.

    With batch norm after it instead of before, the normalised (P, C) tensor never exists. z is overwritten: who
    made it must not need it again.

    Args:
        z: (P, C) of all blocks' points; sizes: of the blocks.
        sign: (C,) +1 where the largest u is wanted, −1 where the smallest.
        floor: 0 for ReLU before batch norm, −inf for none.

    Returns:
        (B, C) extremes, (C,) mean, (C,) variance.
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, sizes: list[int], sign: Tensor, floor: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the outputs and keep what `backward` needs."""
        u = z if floor == -torch.inf else z.clamp_(min=floor)
        extremes, at = [], []
        rows = torch.arange(len(u), device=u.device)
        for block, rows_of_block in zip(u.split(sizes), rows.split(sizes), strict=True):
            high, low = block.max(dim=0), block.min(dim=0)
            extremes.append(torch.where(sign < 0, low.values, high.values))
            at.append(rows_of_block[torch.where(sign < 0, low.indices, high.indices)])
        variance, mean = torch.var_mean(u, dim=0, correction=0)
        ctx.save_for_backward(u, torch.stack(at), mean)
        ctx.floor = floor
        return torch.stack(extremes), mean, variance

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_extreme: Tensor, grad_mean: Tensor, grad_variance: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Gradients of the inputs, None for what has none."""
        u, at, mean = ctx.saved_tensors
        slope = 2 * grad_variance / len(u)
        grad = torch.addcmul(grad_mean / len(u) - slope * mean, u, slope).scatter_add_(0, at, grad_extreme)
        return grad.mul_(u > ctx.floor), None, None, None


def _chunks(neighbours: Tensor) -> zip[tuple[slice, Tensor]]:
    step = ROWS_PER_CHUNK.get(neighbours.device.type, 512)
    starts = range(0, len(neighbours), step)
    return zip(
        (slice(start, start + step) for start in starts),
        neighbours.long().split(step),
        strict=True,
    )
