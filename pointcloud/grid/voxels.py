"""Thinning to one point per voxel, and the way back: one prediction per voxel, a label for every point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pointcloud.cloud import Cloud
from pointcloud.crs import metres_per_unit
from pointcloud.errors import ScanError
from pointcloud.grid.kernels import add_by_key, cell_keys, lowest_by_key, nearest_to_centre, radix_group

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
    cell, size = on_grid(cloud, voxel_size_m)
    order, starts = group_by_cell(cloud.xyz.T, size)
    representative = nearest_to_centre(order, starts, *cloud.xyz.T, *size)
    inverse = np.empty(len(order), np.int64)
    inverse[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    return Voxels(cell[representative], representative, inverse, size)


def voxel_key(cell: np.ndarray) -> np.ndarray:
    """Cells (P, D) as numbers (P,) ≥ 0, in the order of x, y, …; as small as the cells' extent allows."""
    key = np.zeros(len(cell), np.int64)
    for column in cell.T if len(cell) else ():
        low, high = column.min(), column.max()
        key *= high - low + 1
        key += column - low
    return key


def occupied_cells(cell: np.ndarray, values: np.ndarray, how: np.ufunc) -> tuple[np.ndarray, np.ndarray]:
    """Each occupied cell once, in order, (V, D) for cells (P, D), and its points' values joined by a ufunc, (V,).

    Args:
        values: (P,), int64 or float64.
        how: `np.add` or `np.minimum`.
    """
    key = voxel_key(cell)
    span = int(key.max(initial=0)) + 1
    if span > 4 * len(key) + 1024:  # far apart: sorting beats a table of all cells
        order, starts = group(key)
        return cell[order[starts]], how.reduceat(values[order], starts)
    table = np.full(span, 0 if how is np.add else np.inf, values.dtype)
    first = np.empty(span, np.int64)
    (add_by_key if how is np.add else lowest_by_key)(key, values, table, first)
    occupied = first >= 0
    return cell[first[occupied]], table[occupied]


def group_by_cell(
    axes: Sequence[np.ndarray] | np.ndarray, size: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Points, x, y and z of (P,) each, by the cells of `cells_of`, in the order of x, y, z, as `group` gives them."""
    num_points = len(axes[0])
    if not num_points:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    edges = np.array([size[0], size[0], size[1]])
    low, high = (np.floor([how(axis) for axis in axes] / edges).astype(np.int64) for how in (np.min, np.max))
    span = (high - low + 1).tolist()
    num_cells = math.prod(span)
    # Half as wide a key is sorted in two thirds of the time.
    key = np.empty(num_points, np.uint32 if num_cells <= 1 << 32 else np.int64)
    cell_keys(*axes, *size, tuple(low.tolist()), tuple(span), key)
    return radix_group(key, (num_cells - 1).bit_length())


def group(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (P,) by key ≥ 0: their order (P,), equal keys as they come, and where in it each key starts (V,)."""
    return radix_group(key, int(key.max(initial=0)).bit_length())


def every_point(cloud: Cloud, cell_size_m: float) -> Voxels:
    """No thinning: each point stands for itself; `index` still says its cell of the grid.

    Raises:
        ScanError: an extent of more than 2²¹ cells along an axis.
    """
    index, size = on_grid(cloud, cell_size_m)
    points = np.arange(len(cloud))
    return Voxels(index, points, points, size)


def on_grid(cloud: Cloud, size_m: float) -> tuple[np.ndarray, tuple[float, float]]:
    """The cells of points (P, 3) int64, and the cell's size in CRS units.

    Raises:
        ScanError: an extent of more than 2²¹ cells along an axis.
    """
    horizontal, vertical = metres_per_unit(cloud.crs)
    size = (size_m / horizontal, size_m / vertical)
    corners = cloud.corners()
    check_extent(corners, size, size_m)
    return cells_of(cloud.xyz, size), size


def cells_of(xyz: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """The cells (P, 3) int64, axis after axis in memory, of points (P, 3), for edges in CRS units."""
    cell = np.empty((3, len(xyz)), np.int64)
    for axis, column in enumerate(xyz.T):
        scaled = column / size[axis == 2]
        cell[axis] = np.floor(scaled, out=scaled)
    return cell.T


def check_extent(corners: np.ndarray, size: tuple[float, float], size_m: float) -> None:
    """Raises ScanError where corners (N, 3) spread over more than 2²¹ cells along an axis, or cannot be counted."""
    scaled = corners / np.array(size)[[0, 0, 1]]
    if not len(corners) or (
        np.abs(scaled).max() < 2.0**62 and (np.ptp(np.floor(scaled), axis=0) < _MAX_CELLS).all()
    ):
        return
    raise too_wide(float(np.ptp(corners, axis=0).max()), size_m)


def too_wide(extent: float, size_m: float) -> ScanError:
    """The error of a scan whose points spread over more voxels than can be counted."""
    return ScanError(
        f"its points spread over {extent:.3g} CRS units, more than {_MAX_CELLS:,} voxels of {size_m} m; "
        "stray points are likely: clip the scan to its survey area."
    )
