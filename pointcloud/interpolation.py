"""From voxels to points: the logits of a point are those of the three nearest voxels, the nearer the heavier."""

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
    _interpolate(xyz / edges, row, centres / edges, key, spans, cell, logits, made)
    return made


@compiled
def _interpolate(xyz, row, centres, key, spans, cell, logits, made):  # type: ignore[no-untyped-def]
    """The loop of `interpolate`; distances are in edges of a voxel, key (V,) is sorted."""
    first, end = np.empty(9, np.int64), np.empty(9, np.int64)
    near, squared, before = np.empty(3, np.int64), np.empty(3), -1
    for n in range(len(row)):
        own = row[n]
        if own != before:  # points of one voxel come one after the other
            before = own
            for column in range(9):
                middle = key[own] + ((column // 3 - 1) * spans[1] + column % 3 - 1) * spans[2]
                first[column] = end[column] = np.searchsorted(key, middle - 1)
                while end[column] < len(key) and key[end[column]] <= middle + 1:
                    end[column] += 1
                at = first[column]  # a column lies in one cell
                if at < end[column] and (cell[at, 0] != cell[own, 0] or cell[at, 1] != cell[own, 1]):
                    end[column] = at
        near[:], squared[:] = -1, np.inf
        for column in range(9):
            for other in range(first[column], end[column]):
                d = 0.0
                for axis in range(3):
                    d += (xyz[n, axis] - centres[other, axis]) ** 2
                if d < squared[2]:
                    place = 2
                    while place > 0 and d < squared[place - 1]:
                        squared[place], near[place] = squared[place - 1], near[place - 1]
                        place -= 1
                    squared[place], near[place] = d, other
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
