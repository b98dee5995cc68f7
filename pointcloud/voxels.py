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
    table = np.zeros(span, values.dtype) if how is np.add else np.full(span, np.inf, values.dtype)
    how.at(table, key, values)
    first = np.empty(span, np.int64)
    first[key] = np.arange(len(key))
    occupied = np.zeros(span, bool)
    occupied[key] = True
    return cell[first[occupied]], table[occupied]


def group(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (P,) by key ≥ 0: their order (P,), equal keys as they come, and where in it each key starts (V,)."""
    order = _radix_order(key)
    ordered = key[order]
    first = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return order, np.flatnonzero(first)


def _radix_order(key: np.ndarray) -> np.ndarray:
    """A stable argsort. NumPy sorts 16 bits by radix, so two or three rounds of that beat its sort of 64 bits."""
    top = int(key.max(initial=0))
    if top >= 1 << 48:
        return np.argsort(key, kind="stable")
    order = np.argsort(key.astype(np.uint16), kind="stable")
    for shift in (16, 32):
        if top >> shift:
            digit = (key[order] >> shift).astype(np.uint16)
            order = order[np.argsort(digit, kind="stable")]
    return order


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
    is_nearest = distance == np.repeat(np.minimum.reduceat(distance, starts), counts)
    nearest = order[np.flatnonzero(is_nearest)]
    if len(nearest) == len(starts):
        return nearest
    num_nearest = np.add.reduceat(is_nearest, starts, dtype=np.int64)
    ends = np.cumsum(num_nearest)
    chosen = nearest[ends - num_nearest]
    # Where several are equally near, as on a grid of centimetres they often are, coordinates decide.
    tied = num_nearest > 1
    points = nearest[np.repeat(tied, num_nearest)]
    voxel = np.repeat(np.flatnonzero(tied), num_nearest[tied])
    by_coordinates = np.lexsort((points, *xyz[points].T[::-1], voxel))
    first = np.diff(voxel[by_coordinates], prepend=-1) > 0
    chosen[tied] = points[by_coordinates[first]]
    return chosen


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
