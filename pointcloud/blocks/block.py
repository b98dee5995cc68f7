"""Blocks: what the network sees, the points of a tile and its halo, and the sizes that they are cut in."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pointcloud.errors import PointloomError, SchemaError
from pointcloud.grid.kernels import class_counts


@dataclass(frozen=True)
class BlockConfig:
    """How scans are cut. All sizes are metres, also for a scan in feet.

    Attributes:
        tile_size_m: edge of a tile, a multiple of the voxel size.
        halo_m: width of the context around a tile; at most one tile.
        voxel_size_m: one point is kept per voxel; with `thin` off it only rounds the tile size.
        thin: keep one point per voxel (surveys), or every point (rooms).
        overlap: grids shifted by tile_size / overlap along x and y; 2 gives four views of every place.
        ground_window_m: a point's height counts from the lowest point within about this window around it.
        max_points: a tile with more points than this, halo included, is cut into quarters.
        across_scans: tiles and halos go on in the neighbouring scans of the same CRS; off where scans are of
            different times, or each in coordinates of its own.

    Raises:
        PointloomError: sizes that do not fit together.
    """

    tile_size_m: float = 16.0
    halo_m: float = 2.0
    voxel_size_m: float = 0.25
    thin: bool = True
    overlap: int = 1
    ground_window_m: float = 30.0
    max_points: int = 12288
    across_scans: bool = True

    def __post_init__(self) -> None:
        sizes = (self.tile_size_m, self.voxel_size_m, self.ground_window_m)
        if not all(0 < size < math.inf for size in sizes) or not 0 <= self.halo_m <= self.tile_size_m:
            raise PointloomError(
                f"tile {self.tile_size_m} m, voxel {self.voxel_size_m} m and halo {self.halo_m} m do not fit: sizes "
                "must be positive and the halo at most one tile."
            )
        if self.overlap < 1 or self.max_points < 64:
            raise PointloomError("overlap must be 1 or more and max_points 64 or more.")
        per_step = self.tile_size_m / self.voxel_size_m / self.overlap
        if round(per_step) < 1 or abs(per_step - round(per_step)) > 1e-6 * per_step:
            raise PointloomError(
                f"tile_size_m / overlap = {self.tile_size_m / self.overlap:g} must be a multiple of voxel_size_m = "
                f"{self.voxel_size_m:g}, so that a voxel lies in one tile only; change one of them."
            )

    @property
    def voxels_per_tile(self) -> int:
        return round(self.tile_size_m / self.voxel_size_m)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(record: dict[str, Any]) -> BlockConfig:
        try:
            return BlockConfig(**record)
        except TypeError as error:
            raise SchemaError(f"not a block config ({error}).") from error


@dataclass(frozen=True)
class Block:
    """N points, those of the core before those of the halo, each in no particular order.

    Attributes:
        scan: name of the scan.
        tile: (i, j) of the tile on the grid of the CRS.
        shift: (a, b), which of the overlap² grids, in steps of tile_size / overlap.
        cell: (x_min, y_min, x_max, y_max) float, half-open footprint of the core in CRS units.
        origin: (3,) float64, CRS units; `position` counts from here.
        position: (N, 3) float32, metres from the origin.
        height: (N,) float32, metres above the lowest point of the scan nearby.
        attributes: name -> (N,) as in the cloud (classification left out).
        label: (N,) int8 class indices or IGNORE; None where the scan has no labels.
        is_core: (N,) bool, False in the halo.
        point_index: (N,) int64, each point's place in the scan.
        voxel: (N,) int64, each point's voxel in the `Voxels` the block was cut from; not stored.
        extent: (2, 3) float64, smallest and largest corner of the whole scan, metres from the origin as
            `position` is; None where unknown.
        scans: names of the scans that points come from, where a tile or halo crosses from one into another.
        source: (N,) uint16, each point's scan among `scans`; None where all are of `scan`.
    """

    scan: str
    tile: tuple[int, int]
    shift: tuple[int, int]
    cell: tuple[float, float, float, float]
    origin: np.ndarray
    position: np.ndarray
    height: np.ndarray
    attributes: dict[str, np.ndarray]
    label: np.ndarray | None
    is_core: np.ndarray
    point_index: np.ndarray
    voxel: np.ndarray | None = None
    extent: np.ndarray | None = None
    scans: tuple[str, ...] = ()
    source: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.position)

    @cached_property
    def core_counts(self) -> np.ndarray:
        """(K,) int64, labelled core points by class, up to the last class that there is; (0,) without labels."""
        if self.label is None:
            return np.empty(0, np.int64)
        return class_counts(self.label[: np.count_nonzero(self.is_core)])

    def __getitem__(self, rows: np.ndarray) -> Block:
        """The points chosen, in the order given, also several times."""

        def of(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[rows]

        return replace(
            self,
            position=self.position[rows],
            height=self.height[rows],
            attributes={name: values[rows] for name, values in self.attributes.items()},
            label=of(self.label),
            is_core=self.is_core[rows],
            point_index=self.point_index[rows],
            voxel=of(self.voxel),
            source=of(self.source),
        )
