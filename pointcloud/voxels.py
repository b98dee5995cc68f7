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
    scaled, cell, size = on_grid(cloud, voxel_size_m)
    order, starts = group(voxel_key(cell))
    representative = nearest_to_centre(order, starts, scaled, cell, cloud.xyz)
    inverse = np.empty(len(order), np.int64)
    inverse[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    return Voxels(cell[representative], representative, inverse, size)


def voxel_key(cell: np.ndarray) -> np.ndarray:
    """Cells (P, 3) as numbers (P,) ≥ 0, in the order of x, y, z; as small as the cells' extent allows."""
    key = np.zeros(len(cell), np.int64)
    for column in cell.T if len(cell) else ():
        low, high = column.min(), column.max()
        key *= high - low + 1
        key += column - low
    return key


def group(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (P,) by key ≥ 0: their order (P,), and where in it each key's points start (V,)."""
    # A key with the point's number below it sorts as a plain number, several times faster than argsort.
    bits = max(len(key) - 1, 0).bit_length()
    if len(key) and int(key.max()) < 1 << (63 - bits):
        packed = np.sort((key << bits) | np.arange(len(key)))
        order, ordered = packed & ((1 << bits) - 1), packed >> bits
    else:
        order = np.argsort(key, kind="stable")
        ordered = key[order]
    first = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return order, np.flatnonzero(first)


def nearest_to_centre(
    order: np.ndarray, starts: np.ndarray, scaled: np.ndarray, cell: np.ndarray, xyz: np.ndarray
) -> np.ndarray:
    """The point that stands for each voxel, as `Voxels` says: (V,) for points grouped by `group`.

    Args:
        order: (P,), starts: (V,).
        scaled: (P, 3) coordinates in cells, cell: (P, 3) their cells, xyz: (P, 3) coordinates.
    """
    if not len(order):
        return order
    to_centre = scaled - cell
    to_centre -= 0.5
    distance = np.einsum("pi,pi->p", to_centre, to_centre)[order]
    counts = np.diff(starts, append=len(order))
    nearest = np.flatnonzero(distance == np.repeat(np.minimum.reduceat(distance, starts), counts))
    points = order[nearest]
    if len(points) > len(starts):  # some voxels have several, equally near
        voxel = np.searchsorted(starts, nearest, side="right")
        by_coordinates = np.lexsort((points, *xyz[points].T[::-1], voxel))
        first = np.diff(voxel[by_coordinates], prepend=0) > 0
        points = points[by_coordinates[first]]
    return points


def every_point(cloud: Cloud, cell_size_m: float) -> Voxels:
    """No thinning: each point stands for itself; `index` still places it on the grid. Raises as above."""
    _, index, size = on_grid(cloud, cell_size_m)
    points = np.arange(len(cloud))
    return Voxels(index, points, points, size)


def on_grid(cloud: Cloud, size_m: float) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Coordinates in cells (P, 3) float64, their cells (P, 3) int64, and the cell's size in CRS units.

    Raises:
        ScanError: an extent of more than 2²¹ cells along an axis.
    """
    horizontal, vertical = metres_per_unit(cloud.crs)
    size = (size_m / horizontal, size_m / vertical)
    scaled = cloud.xyz / np.array([size[0], size[0], size[1]])
    if np.abs(scaled).max(initial=0) < 2.0**62:
        cell = np.floor(scaled).astype(np.int64)
        check_extent(cloud.xyz, cell, size_m)
        return scaled, cell, size
    raise too_wide(float(np.ptp(cloud.xyz, axis=0).max()), size_m)


def check_extent(xyz: np.ndarray, cell: np.ndarray, size_m: float) -> None:
    """Raises ScanError where points (P, 3) or corners spread over more than 2²¹ cells along an axis."""
    if len(cell) and any(np.ptp(column) >= _MAX_CELLS for column in cell.T):
        raise too_wide(float(np.ptp(xyz, axis=0).max()), size_m)


def too_wide(extent: float, size_m: float) -> ScanError:
    return ScanError(
        f"its points spread over {extent:.3g} CRS units, more than {_MAX_CELLS:,} voxels of {size_m} m; "
        "stray points are likely: clip the scan to its survey area."
    )
