"""Height above the lowest point nearby: a feature that tells a roof from the ground beside it."""

from __future__ import annotations

import numpy as np

from pointcloud.grid.kernels import less_by_square, square_runs
from pointcloud.grid.voxels import occupied_cells


def lowest_points(xyz: np.ndarray, window: float) -> tuple[np.ndarray, np.ndarray]:
    """The occupied ground cells, window / 3 wide: (G, 2) int64, sorted, and the lowest z in each, (G,)."""
    cell, first = square_runs(*xyz.T[:2], window / 3)
    return occupied_cells(cell, np.minimum.reduceat(xyz[:, 2], first), np.minimum)


def height_above(xyz: np.ndarray, window: float, cells: np.ndarray, lowest: np.ndarray) -> np.ndarray:
    """Heights (N,) of points (N, 3) above the lowest point in the 3 × 3 ground cells around each.

    A stand-in for the height above ground that needs no ground: right where the window holds some, as it does
    around most buildings. Cells and lowest as from `lowest_points`; the points' own cells must be among them.
    """
    size = window / 3
    if not len(xyz):
        return np.empty(0)
    corners = np.array([[axis.min(), axis.max()] for axis in xyz.T[:2]])
    low, high = np.floor(corners / size).astype(np.int64).T
    beside = ((cells >= low - 1) & (cells <= high + 1)).all(axis=1)
    cells, lowest = cells[beside], lowest[beside]
    # Two more along each axis, so that no neighbour of a cell has the number of another.
    corner, width = low - 2, int(high[1] - low[1]) + 5
    key = (cells[:, 0] - corner[0]) * width + cells[:, 1] - corner[1]
    nearby = lowest.copy()
    for beyond in (di * width + dj for di in (-1, 0, 1) for dj in (-1, 0, 1)):
        at = np.minimum(np.searchsorted(key, key + beyond), len(key) - 1)
        nearby = np.where(key[at] == key + beyond, np.minimum(nearby, lowest[at]), nearby)
    return less_by_square(*xyz.T, size, tuple(corner.tolist()), width, key, nearby)
