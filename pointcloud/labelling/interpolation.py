"""From voxels to points: the logits of a point are those of the three nearest voxels; nearer ones count more."""

from __future__ import annotations

import numpy as np

from pointcloud.compiling import compiled

_AT_ONE_PLACE = 1e-16  # of a squared distance: as near as that is the point itself


def interpolate(
    xyz: np.ndarray,
    row: np.ndarray,
    centres: np.ndarray,
    voxel: np.ndarray,
    size: tuple[float, float],
    cell_voxels: int,
    logits: np.ndarray,
) -> np.ndarray:
    """Logits of points: of the three nearest points that stand for voxels, by 1 / d² (PointNet++, 2017, eq. 2).

    A voxel at the foot of a wall holds ground and wall; its label alone would give both to one of them. Only the 27
    voxels around a point's own are looked at, and of these only those in its cell of the grid: a cell's voxels have
    all their votes at once, and the same ones whichever file of a survey is being labelled, so no seam comes of it.
    (torch_geometric's `knn_interpolate` has the formula, knows no cells, and needs pyg-lib.)

    Args:
        xyz: (P, 3) points, CRS units; row: (P,) int64, the voxel that each lies in.
        centres: (V, 3), the points that stand for the voxels, CRS units.
        voxel: (V, 3) int64, their places on the grid, in the order of x, y, z.
        size: of a voxel in CRS units, horizontal and vertical.
        cell_voxels: voxels along a cell.
        logits: (V, C) of each voxel in the cells that have points.

    Returns:
        (P, C) float32.
    """
    made = np.empty((len(xyz), logits.shape[1]), np.float32)
    if not len(xyz):
        return made
    low = voxel.min(axis=0)
    # An empty voxel on either side in y and z: neighbours never wrap around.
    spans = np.ptp(voxel, axis=0) + 3
    place = voxel - low + 1
    key = (place[:, 0] * spans[1] + place[:, 1]) * spans[2] + place[:, 2]
    edges = np.array([size[0], size[0], size[1]])
    cell = voxel[:, :2] // cell_voxels
    columns = np.empty((len(voxel), 9), np.int32)
    _find_columns(key, spans, columns)
    _interpolate(xyz / edges, row, centres / edges, key, spans, cell, columns, logits, made)
    return made


@compiled
def _find_columns(key, spans, columns):  # type: ignore[no-untyped-def]
    """Where in key (V,), which is sorted, the three voxels beside each begin, in each of nine columns: (V, 9)."""
    for column in range(9):
        beside, at = _beside(column, spans), 0
        for own in range(len(key)):
            # From one voxel to the next they only move on.
            while at < len(key) and key[at] < key[own] + beside - 1:
                at += 1
            columns[own, column] = at


@compiled
def _beside(column, spans):  # type: ignore[no-untyped-def]
    return ((column // 3 - 1) * spans[1] + column % 3 - 1) * spans[2]


@compiled
def _interpolate(xyz, row, centres, key, spans, cell, columns, logits, made):  # type: ignore[no-untyped-def]
    """The loop of `interpolate`; distances are in edges of a voxel."""
    near, squared = np.empty(3, np.int64), np.empty(3)
    for n in range(len(row)):
        own = row[n]
        near[:], squared[:] = -1, np.inf
        for column in range(9):
            other, last = columns[own, column], key[own] + _beside(column, spans) + 1
            while other < len(key) and key[other] <= last:
                if cell[other, 0] != cell[own, 0] or cell[other, 1] != cell[own, 1]:
                    break  # a column lies in one cell
                d = 0.0
                for axis in range(3):
                    d += (xyz[n, axis] - centres[other, axis]) ** 2
                if d < squared[2]:
                    place = 2
                    while place > 0 and d < squared[place - 1]:
                        squared[place], near[place] = squared[place - 1], near[place - 1]
                        place -= 1
                    squared[place], near[place] = d, other
                other += 1
        total = 0.0
        for place in range(3):
            if near[place] >= 0:
                total += 1.0 / max(squared[place], _AT_ONE_PLACE)
        for c in range(made.shape[1]):
            value = 0.0
            for place in range(3):
                if near[place] >= 0:
                    value += logits[near[place], c] / max(squared[place], _AT_ONE_PLACE)
            made[n, c] = value / total
