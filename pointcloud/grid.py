"""The ground grid of a CRS: voxels make cells, cells make tiles, tiles make regions; all counted in integers.

A cell is the step between two overlapping grids of tiles, so every tile is overlap × overlap cells. A region is
8 × 8 tiles: what is in memory at once while blocks are cut, and all that its tiles need, halo included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pyproj import CRS

from pointcloud.blocks import BlockConfig
from pointcloud.crs import metres_per_unit

_REGION_TILES = 8


@dataclass(frozen=True)
class Grid:
    """Sizes of the grid; everything horizontal is counted from the origin of the CRS.

    Attributes:
        voxel_size: edge of a voxel in CRS units, horizontal and vertical.
        ground_size: edge of the cells whose lowest point heights count from, CRS units.
        cell_voxels: voxels along a cell.
        tile_cells: cells along a tile; as many as there are shifts along an axis.
        region_cells: cells along a region.
        before, after: voxels around a region that its tiles may reach, towards smaller and larger coordinates.
    """

    voxel_size: tuple[float, float]
    ground_size: float
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
            cell_voxels=cell_voxels,
            tile_cells=config.overlap,
            region_cells=_REGION_TILES * config.overlap,
            before=halo,
            # A shifted tile begins in the region and may end beyond it.
            after=halo + (config.overlap - 1) * cell_voxels,
        )

    @property
    def region_voxels(self) -> int:
        return self.region_cells * self.cell_voxels

    def regions_of(self, voxel: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Points that regions need, home regions first: indices (n,) of points and their regions (n, 2).

        Args:
            voxel: (P, 3) int64 voxels of points.
        """
        size = self.region_voxels
        region = voxel[:, :2] // size
        yield np.arange(len(voxel)), region
        inside = voxel[:, :2] - region * size
        beyond = {-1: inside < self.after, 0: np.ones_like(inside, bool), 1: inside >= size - self.before}
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                if di or dj:
                    points = np.flatnonzero(beyond[di][:, 0] & beyond[dj][:, 1])
                    if len(points):
                        yield points, region[points] + [di, dj]

    def region_of_tile(self, tile: tuple[int, int], shift: tuple[int, int]) -> tuple[int, int]:
        """The region in which a tile of one of the shifted grids begins."""
        i, j = (n * self.tile_cells + s for n, s in zip(tile, shift, strict=True))
        return i // self.region_cells, j // self.region_cells
