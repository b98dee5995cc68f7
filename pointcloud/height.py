"""Height above the lowest point nearby: a feature that tells a roof from the ground beside it."""

from __future__ import annotations

import numpy as np

from pointcloud.kernels import square_runs
from pointcloud.voxels import group, occupied_cells, voxel_key


def lowest_points(xyz: np.ndarray, window: float) -> tuple[np.ndarray, np.ndarray]:
    """The occupied ground cells, window / 3 wide: (G, 2) int64, sorted, and the lowest z in each, (G,)."""
    cell, first = square_runs(*xyz.T[:2], window / 3)
    return occupied_cells(cell, np.minimum.reduceat(xyz[:, 2], first), np.minimum)


def height_above(xyz: np.ndarray, window: float, cells: np.ndarray, lowest: np.ndarray) -> np.ndarray:
    """Heights (N,) of points (N, 3) above the lowest point in the 3 × 3 ground cells around each.

    A stand-in for the height above ground that needs no ground: right where the window holds some, as it does
    around most buildings. Cells and lowest as from `lowest_points`; the points' own cells must be among them.
    """
    cell, first = square_runs(*xyz.T[:2], window / 3)
    corner = cell.min(axis=0) - 1
    shape = cell.max(axis=0) - corner + 2
    inside = ((cells >= corner) & (cells < corner + shape)).all(axis=1)
    at = {(int(i), int(j)): z for (i, j), z in zip(cells[inside] - corner, lowest[inside], strict=True)}
    around = [(di, dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
    nearby = {(i, j): min(at[i + di, j + dj] for di, dj in around if (i + di, j + dj) in at) for i, j in at}
    order, starts = group(voxel_key(cell))
    of_cell = [nearby[int(i), int(j)] for i, j in cell[order[starts]] - corner]
    ground = np.empty(len(cell))
    ground[order] = np.repeat(of_cell, np.diff(starts, append=len(order)))
    return xyz[:, 2] - np.repeat(ground, np.diff(first, append=len(xyz)))
