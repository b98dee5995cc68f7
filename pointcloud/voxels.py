"""Thinning to one point per voxel, and the way back: one prediction per voxel, a label for every point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pointcloud.cloud import Cloud
from pointcloud.crs import metres_per_unit
from pointcloud.errors import ScanError

_MAX_CELLS = 1 << 21  # three indices of 21 bits make one 63-bit key


@dataclass(frozen=True)
class Voxels:
    """The occupied voxels of a cloud (V of them, P points).

    Attributes:
        index: (V, 3) int64, cell of the grid whose corner is the CRS origin.
        representative: (V,) int64, the point that stands for each voxel: the nearest to the voxel's centre,
            among equals the one with the smallest (x, y, z), then the first.
        inverse: (P,) int64, the voxel of every point.
        size: edge length in CRS units, horizontal and vertical.
    """

    index: np.ndarray
    representative: np.ndarray
    inverse: np.ndarray
    size: tuple[float, float]

    def __len__(self) -> int:
        return len(self.representative)


def voxelize(cloud: Cloud, voxel_size_m: float) -> Voxels:
    """Group the points of a cloud by voxel; deterministic, and the same for any order of the points.

    Args:
        cloud: P points.
        voxel_size_m: edge length in metres.

    Raises:
        ScanError: an extent of more than 2²¹ voxels along an axis, as stray points make it.
    """
    scaled, cell, size = _on_grid(cloud, voxel_size_m)
    relative = cell - cell.min(axis=0)
    key = (relative[:, 0] << 42) | (relative[:, 1] << 21) | relative[:, 2]
    to_centre = ((scaled - cell - 0.5) ** 2).sum(axis=1)
    order = np.lexsort((*cloud.xyz.T[::-1], to_centre, key))
    first = np.empty(len(order), bool)
    first[:1] = True
    np.not_equal(key[order[1:]], key[order[:-1]], out=first[1:])
    inverse = np.empty(len(order), np.int64)
    inverse[order] = np.cumsum(first) - 1
    representative = order[first]
    return Voxels(cell[representative], representative, inverse, size)


def every_point(cloud: Cloud, cell_size_m: float) -> Voxels:
    """No thinning: each point stands for itself; `index` still places it on the grid. Raises as above."""
    _, index, size = _on_grid(cloud, cell_size_m)
    points = np.arange(len(cloud))
    return Voxels(index, points, points, size)


def _on_grid(cloud: Cloud, size_m: float) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Coordinates in cells (P, 3) float64, their cells (P, 3) int64, and the cell's size in CRS units."""
    horizontal, vertical = metres_per_unit(cloud.crs)
    size = (size_m / horizontal, size_m / vertical)
    scaled = cloud.xyz / np.array([size[0], size[0], size[1]])
    if np.abs(scaled).max(initial=0) < 2.0**62:
        cell = np.floor(scaled).astype(np.int64)
        if not (np.ptp(cell, axis=0) >= _MAX_CELLS).any():
            return scaled, cell, size
    extent = np.ptp(cloud.xyz, axis=0).max()
    raise ScanError(
        f"its points spread over {extent:.3g} CRS units, more than {_MAX_CELLS:,} voxels of {size_m} m; "
        "stray points are likely: clip the scan to its survey area."
    )
