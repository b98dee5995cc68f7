"""The ground grid of a CRS: voxels make cells, cells make tiles, tiles make regions; all counted in integers.

A cell is the step between two overlapping grids of tiles, so every tile is overlap × overlap cells. A region is
8 × 8 tiles, fewer where tiles are large: what is in memory at once while blocks are cut, and all that its tiles need,
halo included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pyproj import CRS

from pointcloud.crs import metres_per_unit
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.kernels import squares_reached
from pointcloud.grid.noise import BIN_M
from pointcloud.grid.voxels import group

_REGION_TILES = 8
_REGION_VOXELS = 512


@dataclass(frozen=True)
class Grid:
    """Sizes of the grid; everything horizontal is counted from the origin of the CRS.

    Attributes:
        voxel_size: edge of a voxel in CRS units, horizontal and vertical.
        ground_size: edge of the cells whose lowest point heights count from, CRS units.
        bin_size: height of the bins in which points of a ground cell are counted, CRS units.
        cell_voxels: voxels along a cell.
        tile_cells: cells along a tile; as many as there are shifts along an axis.
        region_cells: cells along a region.
        before, after: voxels around a region that its tiles may reach, towards smaller and larger coordinates.
    """

    voxel_size: tuple[float, float]
    ground_size: float
    bin_size: float
    cell_voxels: int
    tile_cells: int
    region_cells: int
    before: int
    after: int

    @staticmethod
    def of(config: BlockConfig, crs: CRS | None) -> Grid:
        """Raises ScanError for a CRS in degrees."""
        horizontal, vertical = metres_per_unit(crs)
        cell_voxels = config.voxels_per_tile // config.overlap
        halo = math.ceil(config.halo_m / config.voxel_size_m)
        return Grid(
            voxel_size=(config.voxel_size_m / horizontal, config.voxel_size_m / vertical),
            ground_size=config.ground_window_m / 3 / horizontal,
            bin_size=BIN_M / vertical,
            cell_voxels=cell_voxels,
            tile_cells=config.overlap,
            region_cells=_region_tiles(config) * config.overlap,
            before=halo,
            # A shifted tile begins in the region and may end beyond it.
            after=halo + (config.overlap - 1) * cell_voxels,
        )

    @property
    def region_voxels(self) -> int:
        """Voxels along the side of a region."""
        return self.region_cells * self.cell_voxels

    def regions_of(self, xyz: np.ndarray) -> Squares:
        """Points (P, 3), P ≥ 1, by the regions that need them."""
        return squares_of(xyz, self.voxel_size[0], (0, 0), self.region_voxels, self.before, self.after)

    def region_of_tile(self, tile: tuple[int, int], shift: tuple[int, int]) -> tuple[int, int]:
        """The region in which a tile of one of the shifted grids begins."""
        i, j = (n * self.tile_cells + s for n, s in zip(tile, shift, strict=True))
        return i // self.region_cells, j // self.region_cells


def _region_tiles(config: BlockConfig) -> int:
    """Tiles along a region: eight, or as many as fit `_REGION_VOXELS`."""
    return min(_REGION_TILES, max(1, _REGION_VOXELS // config.voxels_per_tile))


@dataclass(frozen=True)
class Squares:
    """Points by the squares of a grid that need them, square after square, in each its own before those around it.

    Attributes:
        squares: (S, 2) int64, (i, j) of each, in order.
        points: (n,) int64 indices, each point as often as it is needed.
        starts, middles: (S,) int64, where in `points` the own points of each square begin and end; the end of
            those around it is where the next square starts.
    """

    squares: np.ndarray
    points: np.ndarray
    starts: np.ndarray
    middles: np.ndarray

    def __iter__(self) -> Iterator[tuple[tuple[int, int], np.ndarray, np.ndarray]]:
        """Each square, its own points and those around it."""
        ends = np.append(self.starts[1:], len(self.points)).tolist()
        bounds = zip(self.squares.tolist(), self.starts.tolist(), self.middles.tolist(), ends, strict=True)
        for (i, j), start, middle, end in bounds:
            yield (i, j), self.points[start:middle], self.points[middle:end]


def squares_of(
    xyz: np.ndarray, voxel: float, first: tuple[int, int], size: int, before: int, after: int
) -> Squares:
    """Points (P, 3), P ≥ 1, by the squares, `size` voxels wide, in or around which they lie.

    Squares are whole numbers of voxels, counted in integers: no rounding can put a point in two of them.

    Args:
        voxel: a voxel's edge in CRS units.
        first: voxel at which square (0, 0) begins.
        before, after: voxels around a square that it needs, towards smaller and larger coordinates, at most `size`.
    """
    x, y = xyz.T[:2]
    corners = np.array([[axis.min(), axis.max()] for axis in (x, y)])
    reached = np.floor(corners / voxel).astype(np.int64) - np.array(first)[:, None] + [-after, before]
    (low_i, _), (low_j, high_j) = (reached // size).tolist()
    width = high_j - low_j + 1
    place, key = squares_reached(x, y, voxel, first, size, before, after, (low_i, low_j), width)
    order, starts = group(key)
    found = key[order[starts]]
    # Two groups a square, of which one may be empty: its own points, and those around it.
    square, number = np.unique(found >> 1, return_index=True)
    ends = np.append(starts[1:], len(order))
    middles = np.where(found[number] & 1, starts[number], ends[number])
    squares = np.stack([square // width + low_i, square % width + low_j], axis=1)
    return Squares(squares, place.take(order), starts[number], middles)
