"""Cutting a cloud into blocks: what the network sees, the points of a tile and its halo."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pointcloud.cloud import Cloud
from pointcloud.crs import metres_per_unit
from pointcloud.errors import PointloomError, ScanError, SchemaError
from pointcloud.labels import LabelScheme
from pointcloud.voxels import Voxels, every_point, voxelize

_DEEPEST_SPLIT = 6


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

    Raises:
        PointloomError: sizes that do not fit together.
    """

    tile_size_m: float = 16.0
    halo_m: float = 2.0
    voxel_size_m: float = 0.25
    thin: bool = True
    overlap: int = 1
    ground_window_m: float = 30.0
    max_points: int = 8192

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
    """N points, the core ones first in no particular order, then none: `is_core` says which are which.

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

    def __len__(self) -> int:
        return len(self.position)


def thin(cloud: Cloud, config: BlockConfig) -> Voxels:
    """The voxels of a cloud under a block config. Raises ScanError for an extent that cannot be real."""
    return (voxelize if config.thin else every_point)(cloud, config.voxel_size_m)


def iterate_blocks(
    scan: str, cloud: Cloud, voxels: Voxels, config: BlockConfig, scheme: LabelScheme | None
) -> Iterator[Block]:
    """Cut a cloud into blocks, tile after tile in the order of (shift, i, j).

    Every voxel is in the core of exactly one block per shift. A tile above `max_points` is cut into quarters,
    and those again, so that the densest scan still fits the network.

    Raises:
        ScanError: more than `max_points` points that no cut can part (many points at one place).
    """
    kept = cloud[voxels.representative]
    label = None
    if scheme is not None and "classification" in kept.attributes:
        label = scheme.to_indices(kept.attributes["classification"])
    attributes = {name: v for name, v in kept.attributes.items() if name != "classification"}
    metres = metres_per_unit(cloud.crs)
    height = (height_above_lowest(kept.xyz, config.ground_window_m / metres[0]) * metres[1]).astype(
        np.float32
    )
    extent = np.stack([cloud.xyz.min(axis=0, initial=np.inf), cloud.xyz.max(axis=0, initial=-np.inf)])
    cut = _Cut(scan, kept.xyz, height, attributes, label, voxels, config, metres, extent)
    step = config.voxels_per_tile // config.overlap
    for a in range(config.overlap):
        for b in range(config.overlap):
            yield from cut.tiles((a, b), np.array([a * step, b * step]))


def height_above_lowest(xyz: np.ndarray, window: float) -> np.ndarray:
    """Heights (N,) of points (N, 3) above the lowest point in the 3 × 3 cells of window / 3 around each.

    A stand-in for the height above ground that needs no ground: right where the window holds some, as it does
    around most buildings.
    """
    cell = np.floor(xyz[:, :2] / (window / 3)).astype(np.int64)
    cells, inverse = np.unique(cell, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    lowest = np.full(len(cells), np.inf)
    np.minimum.at(lowest, inverse, xyz[:, 2])
    at = {(int(i), int(j)): n for n, (i, j) in enumerate(cells)}
    around = [(di, dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
    nearby = np.array(
        [min(lowest[at[i + di, j + dj]] for di, dj in around if (i + di, j + dj) in at) for i, j in at]
    )
    return xyz[:, 2] - nearby[inverse]


@dataclass(frozen=True)
class _Cut:
    """The thinned cloud that blocks are cut from; `extent` (2, 3) is the whole cloud's, in CRS units."""

    scan: str
    xyz: np.ndarray
    height: np.ndarray
    attributes: dict[str, np.ndarray]
    label: np.ndarray | None
    voxels: Voxels
    config: BlockConfig
    metres: tuple[float, float]
    extent: np.ndarray

    def tiles(self, shift: tuple[int, int], offset: np.ndarray) -> Iterator[Block]:
        # Tiles are whole numbers of voxels, counted in integers: no rounding can put a point in two of them.
        tile = (self.voxels.index[:, :2] - offset) // self.config.voxels_per_tile
        order = np.lexsort((tile[:, 1], tile[:, 0]))
        found, starts = np.unique(tile[order], axis=0, return_index=True)
        members = {
            (int(i), int(j)): part for (i, j), part in zip(found, np.split(order, starts[1:]), strict=True)
        }
        unit = self.voxels.size[0]
        for (i, j), core in members.items():
            around = [members.get((i + di, j + dj)) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
            nearby = np.sort(np.concatenate([part for part in around if part is not None]))
            low = (np.array([i, j]) * self.config.voxels_per_tile + offset) * unit
            size = self.config.voxels_per_tile * unit
            yield from self._cells((i, j), shift, np.sort(core), nearby, low, size, 0)

    def _cells(
        self, tile: tuple[int, int], shift: tuple[int, int], core: np.ndarray, nearby: np.ndarray,
        low: np.ndarray, size: float, depth: int,
    ) -> Iterator[Block]:  # fmt: skip
        halo = self.config.halo_m / self.metres[0]
        xy = self.xyz[nearby, :2]
        inside = ((xy >= low - halo) & (xy < low + size + halo)).all(axis=1)
        context = np.setdiff1d(nearby[inside], core, assume_unique=True)
        if len(core) + len(context) <= self.config.max_points:
            yield self._block(tile, shift, core, context, low, size)
            return
        if depth == _DEEPEST_SPLIT:
            raise ScanError(
                f"{len(core) + len(context)} points within {size * self.metres[0]:.2g} m at {low.round(2).tolist()}, "
                f"more than max_points = {self.config.max_points}; thin with a larger voxel or remove duplicates."
            )
        half = size / 2
        upper = self.xyz[core, :2] >= low + half
        for right in (False, True):
            for top in (False, True):
                part = core[(upper[:, 0] == right) & (upper[:, 1] == top)]
                if len(part):
                    corner = low + half * np.array([right, top])
                    yield from self._cells(tile, shift, part, nearby, corner, half, depth + 1)

    def _block(
        self, tile: tuple[int, int], shift: tuple[int, int], core: np.ndarray, context: np.ndarray,
        low: np.ndarray, size: float,
    ) -> Block:  # fmt: skip
        rows = np.concatenate([core, context])
        xyz = self.xyz[rows]
        origin = np.array([*(low + size / 2), xyz[:, 2].min()])
        metres = np.array([self.metres[0], self.metres[0], self.metres[1]])
        return Block(
            scan=self.scan,
            tile=tile,
            shift=shift,
            cell=(*low.tolist(), *(low + size).tolist()),
            origin=origin,
            position=((xyz - origin) * metres).astype(np.float32),
            height=self.height[rows],
            attributes={name: values[rows] for name, values in self.attributes.items()},
            label=None if self.label is None else self.label[rows],
            is_core=np.arange(len(rows)) < len(core),
            point_index=self.voxels.representative[rows],
            voxel=rows,
            extent=(self.extent - origin) * metres,
        )
