"""Cutting a cloud into blocks: what the network sees, the points of a tile and its halo."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from pyproj import CRS

from pointcloud.cloud import Cloud
from pointcloud.crs import metres_per_unit
from pointcloud.errors import PointloomError, ScanError, SchemaError
from pointcloud.labels import LabelScheme
from pointcloud.voxels import Voxels, every_point, group, occupied_cells, voxel_key, voxelize

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
    max_points: int = 8192
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
    if not len(voxels):
        return
    kept = cloud[voxels.representative]
    label = None
    if scheme is not None and "classification" in kept.attributes:
        label = scheme.to_indices(kept.attributes["classification"])
    window = config.ground_window_m / metres_per_unit(cloud.crs)[0]
    height = height_above(kept.xyz, window, *lowest_points(cloud.xyz, window))
    points = ThinnedPoints(
        scan=scan,
        xyz=kept.xyz,
        height=height,
        attributes={name: v for name, v in kept.attributes.items() if name != "classification"},
        label=label,
        voxel=voxels.index,
        point_index=voxels.representative,
        extent=np.stack([cloud.xyz.min(axis=0), cloud.xyz.max(axis=0)]),
        crs=cloud.crs,
    )
    yield from points.cut(config)


def lowest_points(xyz: np.ndarray, window: float) -> tuple[np.ndarray, np.ndarray]:
    """The occupied ground cells, window / 3 wide: (G, 2) int64, sorted, and the lowest z in each, (G,)."""
    return occupied_cells(np.floor(xyz[:, :2] / (window / 3)).astype(np.int64), xyz[:, 2], np.minimum)


def height_above(xyz: np.ndarray, window: float, cells: np.ndarray, lowest: np.ndarray) -> np.ndarray:
    """Heights (N,) of points (N, 3) above the lowest point in the 3 × 3 ground cells around each.

    A stand-in for the height above ground that needs no ground: right where the window holds some, as it does
    around most buildings. Cells and lowest as from `lowest_points`; the points' own cells must be among them.
    """
    of_point = np.floor(xyz[:, :2] / (window / 3)).astype(np.int64)
    corner = of_point.min(axis=0) - 1
    shape = of_point.max(axis=0) - corner + 2
    inside = ((cells >= corner) & (cells < corner + shape)).all(axis=1)
    at = {(int(i), int(j)): z for (i, j), z in zip(cells[inside] - corner, lowest[inside], strict=True)}
    around = [(di, dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
    nearby = {(i, j): min(at[i + di, j + dj] for di, dj in around if (i + di, j + dj) in at) for i, j in at}
    order, starts = group(voxel_key(of_point))
    of_cell = [nearby[int(i), int(j)] for i, j in of_point[order[starts]] - corner]
    ground = np.empty(len(xyz))
    ground[order] = np.repeat(of_cell, np.diff(starts, append=len(order)))
    return xyz[:, 2] - ground


@dataclass(frozen=True)
class ThinnedPoints:
    """One point per voxel, V of them, as blocks are cut from: a whole scan's, or those that a region needs.

    Attributes:
        scan, crs: of the blocks.
        xyz: (V, 3) float64, CRS units; height: (V,) float64, CRS units.
        attributes: name -> (V,), without the classification; label: (V,) int8, or None.
        voxel: (V, 3) int64 on the grid of the CRS.
        point_index: (V,) int64 in the scan each point is from.
        extent: (2, 3) float64 of the whole scan, CRS units.
        scans, source: as in `Block`.
    """

    scan: str
    xyz: np.ndarray
    height: np.ndarray
    attributes: dict[str, np.ndarray]
    label: np.ndarray | None
    voxel: np.ndarray
    point_index: np.ndarray
    extent: np.ndarray
    crs: CRS | None
    scans: tuple[str, ...] = ()
    source: np.ndarray | None = None

    def cut(
        self, config: BlockConfig, wanted: Mapping[tuple[int, int], Collection[tuple[int, int]]] | None = None
    ) -> Iterator[Block]:
        """Blocks as `iterate_blocks` gives them; of each shift only the tiles wanted, None: all."""
        step = config.voxels_per_tile // config.overlap
        metres = metres_per_unit(self.crs)
        for a in range(config.overlap):
            for b in range(config.overlap):
                tiles = None if wanted is None else wanted.get((a, b), ())
                if tiles is None or tiles:
                    cut = _Cut(self, config, metres, (a, b), np.zeros(len(self.xyz), bool))
                    yield from cut.tiles(np.array([a * step, b * step]), tiles)


@dataclass(frozen=True)
class _Cut:
    """One of the shifted grids laid over points; `taken` (V,) is scratch, all False between blocks."""

    points: ThinnedPoints
    config: BlockConfig
    metres: tuple[float, float]
    shift: tuple[int, int]
    taken: np.ndarray

    def tiles(self, offset: np.ndarray, wanted: Collection[tuple[int, int]] | None) -> Iterator[Block]:
        # Tiles are whole numbers of voxels, counted in integers: no rounding can put a point in two of them.
        tile = (self.points.voxel[:, :2] - offset) // self.config.voxels_per_tile
        order, starts = group(voxel_key(tile))
        members = {
            (int(i), int(j)): part
            for (i, j), part in zip(tile[order[starts]], np.split(order, starts[1:]), strict=True)
        }
        unit = self.config.voxel_size_m / self.metres[0]
        for (i, j), core in members.items():
            if wanted is not None and (i, j) not in wanted:
                continue
            around = [members.get((i + di, j + dj)) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
            nearby = np.concatenate([part for part in around if part is not None])
            low = (np.array([i, j]) * self.config.voxels_per_tile + offset) * unit
            size = self.config.voxels_per_tile * unit
            yield from self._cells((i, j), core, nearby, low, size, 0)

    def _cells(
        self, tile: tuple[int, int], core: np.ndarray, nearby: np.ndarray, low: np.ndarray, size: float, depth: int
    ) -> Iterator[Block]:  # fmt: skip
        halo = self.config.halo_m / self.metres[0]
        x, y = self.points.xyz[nearby, 0], self.points.xyz[nearby, 1]
        (x_low, y_low), high = low - halo, size + 2 * halo
        self.taken[core] = True
        inside = (x >= x_low) & (x < x_low + high) & (y >= y_low) & (y < y_low + high)
        context = nearby[inside & ~self.taken[nearby]]
        self.taken[core] = False
        if len(core) + len(context) <= self.config.max_points:
            yield self._block(tile, core, context, low, size)
            return
        if depth == _DEEPEST_SPLIT:
            raise ScanError(
                f"{len(core) + len(context)} points within {size * self.metres[0]:.2g} m at {low.round(2).tolist()}, "
                f"more than max_points = {self.config.max_points}; thin with a larger voxel or remove duplicates."
            )
        half = size / 2
        upper = self.points.xyz[core, :2] >= low + half
        for right in (False, True):
            for top in (False, True):
                part = core[(upper[:, 0] == right) & (upper[:, 1] == top)]
                if len(part):
                    corner = low + half * np.array([right, top])
                    yield from self._cells(tile, part, nearby, corner, half, depth + 1)

    def _block(
        self, tile: tuple[int, int], core: np.ndarray, context: np.ndarray, low: np.ndarray, size: float
    ) -> Block:  # fmt: skip
        points, rows = self.points, np.concatenate([core, context])
        xyz = np.array([column[rows] for column in points.xyz.T]).T
        origin = np.array([*(low + size / 2), xyz[:, 2].min()])
        metres = np.array([self.metres[0], self.metres[0], self.metres[1]])
        source = None if points.source is None else points.source[rows]
        return Block(
            scan=points.scan,
            tile=tile,
            shift=self.shift,
            cell=(*low.tolist(), *(low + size).tolist()),
            origin=origin,
            position=((xyz - origin) * metres).astype(np.float32),
            height=(points.height[rows] * self.metres[1]).astype(np.float32),
            attributes={name: values[rows] for name, values in points.attributes.items()},
            label=None if points.label is None else points.label[rows],
            is_core=np.arange(len(rows)) < len(core),
            point_index=points.point_index[rows],
            voxel=rows,
            extent=(points.extent - origin) * metres,
            scans=points.scans if source is not None else (),
            source=source,
        )
