"""k nearest neighbours of points in space on the CPU, found in a grid of cells.

What `knn_cpu` finds among the N × N distances of features, for points in two or three dimensions: a search looks at the
cells around a point, ring by ring, until no nearer point can lie beyond. Its cost grows with N, not with N².
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# mypy: check-untyped-defs=False
# numba finds the types of what it compiles; docstrings tell them.

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from models.kernels.dispatch import run_on_threads
from pointcloud.compiling import compiled
from pointcloud.grid.voxels import group_by_cell

_NEAR = 0.4
"""Points wanted in a cell, as a share of the neighbours wanted: nine cells of a surface then hold them all, mostly."""
_MOST_ROUNDS = 64


def search(xyz: Tensor, bounds: list[int], reach: int) -> Tensor:
    """The `reach` nearest points of every point among those of its own block, itself (or its double) first.

    Args:
        xyz: (P, D) float32 or float64 on the CPU, D at most 3.
        bounds: (B + 1) first row of every block, and P.
        reach: how many.

    Returns:
        (P, R) int32 rows of xyz, nearest first; of points at equal distance the lower row is nearer. In a block of
        N < R points the ranks from N on repeat the last.
    """
    found = torch.empty((len(xyz), reach), dtype=torch.int32)
    points = np.zeros((len(xyz), 3), xyz.numpy().dtype)
    points[:, : xyz.shape[1]] = xyz.numpy()
    for start, end in pairwise(bounds):
        _search_block(points[start:end], start, found.numpy()[start:end])
    return found


def _search_block(xyz: np.ndarray, first_row: int, found: np.ndarray) -> None:
    """`search` of one block. What a round cannot decide, as far from all others, the next looks for in larger cells."""
    reach = min(found.shape[1], len(xyz))
    axes = np.ascontiguousarray((xyz - xyz.min(axis=0)).T)
    edge, wanted = _first_edge(axes, _NEAR * reach), np.ones(len(xyz), np.bool_)
    for _ in range(_MOST_ROUNDS):
        order, starts = group_by_cell(axes, (edge, edge))
        cell = np.floor(axes[:, order[starts]].astype(np.float64) / edge).astype(np.int64).T.copy()
        columns = np.flatnonzero(np.r_[True, (np.diff(cell[:, :2], axis=0) != 0).any(axis=1)])
        starts, columns = np.append(starts, len(order)), np.append(columns, len(cell))
        whole = len(cell) == 1 or (np.ptp(cell, axis=0) <= 1).all()
        run_on_threads(
            _search_columns, len(columns) - 1, axes[:, order], order, starts, cell, columns,
            float(edge), bool(whole), wanted, np.int64(first_row), reach, found,
        )  # fmt: skip
        if not wanted.any():
            break
        edge *= 2
    found[:, reach:] = found[:, reach - 1 : reach]


def _first_edge(axes: np.ndarray, points_per_cell: float) -> float:
    """Edge of cells in which a point finds about so many, if the points lie on surfaces."""
    size = np.ptp(axes, axis=1)
    spread = float(size.max())
    if spread <= 0:
        return 1.0
    edge = spread * math.sqrt(points_per_cell / axes.shape[1])
    for _ in range(3):
        _, starts = group_by_cell(axes, (edge, edge))
        count = np.diff(starts, append=axes.shape[1])
        found = float((count * count).sum()) / axes.shape[1]
        if 0.7 < found / points_per_cell < 1.4:
            break
        edge = float(np.clip(edge * math.sqrt(points_per_cell / found), spread * 2.0**-19, 2 * spread))
    return edge


@compiled
def _search_columns(
    first, end, axes, order, starts, cell, columns, edge, whole, wanted, first_row, reach, found
):
    """The points of columns first to end whose neighbours are still wanted.

    axes (3, P) and order (P,) lie in the order of the cells; starts (M + 1,) say where each begins, cell (M, 3) where
    it lies, columns (C + 1,) where the cells of each place (x, y) begin. `whole`: the cells around any one are all.
    """
    near, num_columns = np.empty(9, np.int64), len(columns) - 1
    room = 1024
    xs, ys, zs = np.empty(room, axes.dtype), np.empty(room, axes.dtype), np.empty(room, axes.dtype)
    rows, squared = np.empty(room, np.int64), np.empty(room, axes.dtype)
    best, best_row = np.empty(reach, axes.dtype), np.empty(reach, np.int64)
    for column in range(first, end):
        x, y, num_near = cell[columns[column], 0], cell[columns[column], 1], -1
        for m in range(columns[column], columns[column + 1]):
            is_wanted = False
            for n in range(starts[m], starts[m + 1]):
                is_wanted |= wanted[order[n]]
            if not is_wanted:
                continue
            if num_near < 0:
                num_near = 0
                for row in range(x - 1, x + 2):
                    c = _first_column(cell, columns, row, y - 1)
                    while c < num_columns and cell[columns[c], 0] == row and cell[columns[c], 1] <= y + 1:
                        near[num_near] = c
                        num_near += 1
                        c += 1
            z, num = cell[m, 2], 0
            for other in range(num_near):
                c = near[other]
                low, high = columns[c], columns[c + 1]
                while low < high and cell[low, 2] < z - 1:
                    low += 1
                last = low
                while last < high and cell[last, 2] <= z + 1:
                    last += 1
                if last == low:
                    continue
                count = starts[last] - starts[low]
                if num + count > room:
                    room = 2 * (num + count)
                    xs, ys, zs = _longer(xs, num, room), _longer(ys, num, room), _longer(zs, num, room)
                    rows, squared = _longer(rows, num, room), np.empty(room, axes.dtype)
                for n in range(starts[low], starts[last]):
                    xs[num], ys[num], zs[num], rows[num] = axes[0, n], axes[1, n], axes[2, n], order[n]
                    num += 1
            if num < reach and not whole:
                continue
            for n in range(starts[m], starts[m + 1]):
                if not wanted[order[n]]:
                    continue
                px, py, pz = axes[0, n], axes[1, n], axes[2, n]
                _squared_distances(xs, ys, zs, px, py, pz, squared, num)
                _nearest(squared, rows, num, best, best_row)
                # As far as the cells that were looked at reach on every side.
                margin = min(
                    min(
                        min(px - (x - 1) * edge, (x + 2) * edge - px),
                        min(py - (y - 1) * edge, (y + 2) * edge - py),
                    ),
                    min(pz - (z - 1) * edge, (z + 2) * edge - pz),
                )
                if whole or best[reach - 1] < margin * margin:
                    wanted[order[n]] = False
                    for r in range(reach):
                        found[order[n], r] = best_row[r] + first_row


@compiled
def _first_column(cell, columns, x, y):
    """The first column at (x, y) or after, in the order of x, then y."""
    low, high = 0, len(columns) - 1
    while low < high:
        middle = (low + high) // 2
        at = columns[middle]
        if cell[at, 0] < x or (cell[at, 0] == x and cell[at, 1] < y):
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _longer(values, num, room):
    longer = np.empty(room, values.dtype)
    longer[:num] = values[:num]
    return longer


@compiled
def _squared_distances(xs, ys, zs, x, y, z, squared, num):
    for j in range(num):
        dx, dy, dz = xs[j] - x, ys[j] - y, zs[j] - z
        squared[j] = dx * dx + dy * dy + dz * dz


@compiled
def _nearest(squared, rows, num, best, best_row):
    """The len(best) nearest of `num` candidates, by distance, then row."""
    reach = len(best)
    best[:] = np.inf
    best_row[:] = 0
    limit = best[reach - 1]
    for j in range(num):
        d = squared[j]
        if d > limit:
            continue
        row, place = rows[j], reach - 1
        if d == limit and row > best_row[place]:
            continue
        while place > 0 and (best[place - 1] > d or (best[place - 1] == d and best_row[place - 1] > row)):
            best[place], best_row[place] = best[place - 1], best_row[place - 1]
            place -= 1
        best[place], best_row[place] = d, row
        limit = best[reach - 1]
