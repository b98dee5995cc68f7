"""EdgeConv's passes over the edges on the CPU; `models.network.aggregation` says what they compute.

Whatever the thread count, every sum is made in the same order: forward sums over fixed stretches of points,
backward by channels.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# mypy: check-untyped-defs=False
# numba finds the types of what it compiles; docstrings tell them.

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from models.kernels.dispatch import run_on_threads
from pointcloud.compiling import compiled

STRETCH = 128
"""Points whose edges are summed in one go."""
CHANNELS = 16
"""Channels that one thread takes through all points on the way back: 64 bytes of every row."""


def neighbour_max(x: Tensor, neighbours: Tensor) -> tuple[Tensor, Tensor]:
    """max_j x_j and the first j that has it: (P, C) and (P, C) uint8; x (P, C), neighbours (P, K)."""
    largest, at = torch.empty(x.shape, dtype=x.dtype), torch.empty(x.shape, dtype=torch.uint8)
    arrays = (t.detach().contiguous().numpy() for t in (x, neighbours, largest, at))
    run_on_threads(_neighbour_max, len(x), *arrays)
    return largest, at


def neighbour_largest(x: Tensor, neighbours: Tensor) -> Tensor:
    """max_j x_j, (P, C), as `neighbour_max` finds it, for evaluation, which needs no j."""
    largest = torch.empty(x.shape, dtype=x.dtype)
    arrays = (t.detach().contiguous().numpy() for t in (x, neighbours, largest))
    run_on_threads(_neighbour_largest, len(x), *arrays)
    return largest


def edge_extremes(
    a: Tensor, b: Tensor, neighbours: Tensor, sign: Tensor, floor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of u_ij = max(a_i + b_j, floor) the extreme (P, C), its j (P, C) uint8, the sums of u and u² (2, C)."""
    extreme, at = torch.empty(a.shape, dtype=a.dtype), torch.empty(a.shape, dtype=torch.uint8)
    sums = torch.zeros((-(-len(a) // STRETCH), 2, a.shape[1]), dtype=torch.float64)
    arrays = (t.detach().contiguous().numpy() for t in (a, b, neighbours, sign, extreme, at, sums))
    run_on_threads(_edge_extremes, len(sums), _scalar(floor, a), *arrays)
    return extreme, at, sums.sum(dim=0)


def extreme_sums(
    a: Tensor, b: Tensor, neighbours: Tensor, at: Tensor, grad: Tensor, floor: float
) -> tuple[Tensor, Tensor]:
    """Σ_i grad_i and Σ_i grad_i · u_ij, j = at_i and u as above, (C,) each, summed in float64."""
    sums = torch.zeros((2, a.shape[1]), dtype=torch.float64)
    arrays = (t.detach().contiguous().numpy() for t in (a, b, neighbours, at, grad, sums))
    run_on_threads(_extreme_sums, -(-a.shape[1] // CHANNELS), _scalar(floor, a), *arrays)
    grad_sum, weighted = sums.to(a.dtype)
    return grad_sum, weighted


def edge_gradients(
    a: Tensor,
    b: Tensor,
    neighbours: Tensor,
    at: Tensor,
    grad: Tensor,
    scale: Tensor,
    constant: Tensor,
    slope: Tensor,
    floor: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of a and b (P, C), where z = a_i + b_j > floor: constant + slope · z, and grad · scale at `at`."""
    grad_a, grad_b = torch.empty(a.shape, dtype=a.dtype), torch.zeros(b.shape, dtype=b.dtype)
    arrays = (
        t.detach().contiguous().numpy()
        for t in (a, b, neighbours, at, grad, scale, constant, slope, grad_a, grad_b)
    )
    run_on_threads(_edge_gradients, -(-a.shape[1] // CHANNELS), _scalar(floor, a), *arrays)
    return grad_a, grad_b


def _scalar(value: float, like: Tensor) -> np.floating:
    return np.float32(value) if like.dtype == torch.float32 else np.float64(value)


@compiled
def _neighbour_max(first, end, x, neighbours, largest, at):
    num_channels = x.shape[1]
    # Indices as wide as the values: the compiler then chooses several of both at once.
    best, best_at = np.empty(num_channels, x.dtype), np.empty(num_channels, np.int32)
    for i in range(first, end):
        best[:] = x[neighbours[i, 0]]
        best_at[:] = 0
        for j in range(1, neighbours.shape[1]):
            _keep_larger(x[neighbours[i, j]], np.int32(j), best, best_at)
        for c in range(num_channels):
            largest[i, c], at[i, c] = best[c], best_at[c]


@njit
def _keep_larger(x, j, largest, at):
    for c in range(len(x)):
        larger = x[c] > largest[c]
        largest[c] = x[c] if larger else largest[c]
        at[c] = j if larger else at[c]


@compiled
def _neighbour_largest(first, end, x, neighbours, largest):
    """Four rows at a time: the largest so far is then read and written a quarter as often."""
    k, flat = neighbours.shape[1], x.ravel()
    best, width = np.empty(x.shape[1], x.dtype), np.uint64(x.shape[1])
    for i in range(first, end):
        best[:] = x[neighbours[i, 0]]
        for j in range(1, k, 4):
            a, b = neighbours[i, j], neighbours[i, min(j + 1, k - 1)]
            c, d = neighbours[i, min(j + 2, k - 1)], neighbours[i, min(j + 3, k - 1)]
            _largest_of(
                flat,
                np.uint64(a) * width,
                np.uint64(b) * width,
                np.uint64(c) * width,
                np.uint64(d) * width,
                best,
            )
        largest[i] = best


@njit
def _largest_of(x, a, b, c, d, best):
    for n in range(len(best)):
        m = np.uint64(n)
        p, q, r, s = x[a + m], x[b + m], x[c + m], x[d + m]
        p, r = q if q > p else p, s if s > r else r
        p = r if r > p else p
        best[n] = p if p > best[n] else best[n]


@compiled
def _edge_extremes(first, end, floor, a, b, neighbours, sign, extreme, at, sums):
    num_channels = a.shape[1]
    best, best_at = np.empty(num_channels, a.dtype), np.empty(num_channels, np.int32)
    total, squares = np.empty(num_channels, a.dtype), np.empty(num_channels, a.dtype)
    for stretch in range(first, end):
        for i in range(stretch * STRETCH, min((stretch + 1) * STRETCH, len(a))):
            best[:] = -np.inf
            best_at[:] = 0
            total[:] = 0
            squares[:] = 0
            for j in range(neighbours.shape[1]):
                _add_edge(a[i], b[neighbours[i, j]], sign, floor, np.int32(j), best, best_at, total, squares)
            for c in range(num_channels):
                extreme[i, c] = best[c] * sign[c]
                at[i, c] = best_at[c]
                sums[stretch, 0, c] += total[c]
                sums[stretch, 1, c] += squares[c]


@njit
def _add_edge(a, b, sign, floor, j, best, best_at, total, squares):
    for c in range(len(a)):
        u = max(a[c] + b[c], floor)
        total[c] += u
        squares[c] += u * u
        signed = sign[c] * u
        better = signed > best[c]
        best[c] = signed if better else best[c]
        best_at[c] = j if better else best_at[c]


@compiled
def _extreme_sums(first, end, floor, a, b, neighbours, at, grad, sums):
    for i in range(len(a)):
        for c in range(first * CHANNELS, min(end * CHANNELS, a.shape[1])):
            u = max(a[i, c] + b[neighbours[i, at[i, c]], c], floor)
            sums[0, c] += grad[i, c]
            sums[1, c] += grad[i, c] * u


@compiled
def _edge_gradients(first, end, floor, a, b, neighbours, at, grad, scale, constant, slope, grad_a, grad_b):
    start, stop = first * CHANNELS, min(end * CHANNELS, a.shape[1])
    for i in range(len(a)):
        for c in range(start, stop):
            row = neighbours[i, at[i, c]]
            of_extreme = grad[i, c] * scale[c] if a[i, c] + b[row, c] > floor else a.dtype.type(0)
            grad_a[i, c] = of_extreme
            grad_b[row, c] += of_extreme
        for j in range(neighbours.shape[1]):
            row = neighbours[i, j]
            _add_gradient(
                a[i, start:stop],
                b[row, start:stop],
                constant[start:stop],
                slope[start:stop],
                floor,
                grad_a[i, start:stop],
                grad_b[row, start:stop],
            )


@njit
def _add_gradient(a, b, constant, slope, floor, grad_a, grad_b):
    for c in range(len(a)):
        z = a[c] + b[c]
        grad = constant[c] + slope[c] * z if z > floor else a.dtype.type(0)
        grad_a[c] += grad
        grad_b[c] += grad
