"""Cutting points into blocks: tiles on the grid of the CRS, their halos, and quarters where they are dense."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pyproj import CRS

from pointcloud.blocks.block import Block
from pointcloud.cloud import Cloud
from pointcloud.crs import metres_per_unit
from pointcloud.errors import ScanError
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.grid import squares_of
from pointcloud.grid.height import height_above, lowest_points
from pointcloud.grid.kernels import inside, local_positions
from pointcloud.grid.voxels import Voxels, cells_of, every_point, voxelize
from pointcloud.labels import LabelScheme

_DEEPEST_SPLIT = 6


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
        label = scheme.to_labels(kept.attributes["classification"], scan)
    window = config.ground_window_m / metres_per_unit(cloud.crs)[0]
    height = height_above(kept.xyz, window, *lowest_points(cloud.xyz, window))
    points = ThinnedPoints(
        scan=scan,
        xyz=kept.xyz,
        height=height,
        attributes={name: v for name, v in kept.attributes.items() if name != "classification"},
        label=label,
        voxel_size=voxels.size,
        point_index=voxels.representative,
        extent=cloud.corners(),
        crs=cloud.crs,
    )
    yield from points.cut(config)


@dataclass(frozen=True)
class ThinnedPoints:
    """One point per voxel, V of them, as blocks are cut from: a whole scan's, or those that a region needs.

    Attributes:
        scan, crs: of the blocks.
        xyz: (V, 3) float64, CRS units; height: (V,) float64, CRS units.
        attributes: name -> (V,), without the classification; label: (V,) int8, or None.
        voxel_size: edge length in CRS units, horizontal and vertical.
        point_index: (V,) int64 in the scan each point is from.
        extent: (2, 3) float64 of the whole scan, CRS units.
        scans, source: as in `Block`.
    """

    scan: str
    xyz: np.ndarray
    height: np.ndarray
    attributes: dict[str, np.ndarray]
    label: np.ndarray | None
    voxel_size: tuple[float, float]
    point_index: np.ndarray
    extent: np.ndarray
    crs: CRS | None
    scans: tuple[str, ...] = ()
    source: np.ndarray | None = None

    @cached_property
    def voxel(self) -> np.ndarray:
        """(V, 3) int64, each point's voxel on the grid of the CRS."""
        return cells_of(self.xyz, self.voxel_size)

    @cached_property
    def height_m(self) -> np.ndarray:
        """(V,) float32, `height` in metres."""
        return (self.height * metres_per_unit(self.crs)[1]).astype(np.float32)

    def cut(
        self, config: BlockConfig, wanted: Mapping[tuple[int, int], Collection[tuple[int, int]]] | None = None
    ) -> Iterator[Block]:
        """Blocks as `iterate_blocks` gives them; of each shift only the tiles wanted, None: all."""
        if not len(self.xyz):
            return
        step = config.voxels_per_tile // config.overlap
        metres = metres_per_unit(self.crs)
        for a in range(config.overlap):
            for b in range(config.overlap):
                tiles = None if wanted is None else wanted.get((a, b), ())
                if tiles is None or tiles:
                    cut = _Cut(self, config, metres, (a, b))
                    yield from cut.tiles((a * step, b * step), tiles)


@dataclass(frozen=True)
class _Cut:
    """One of the shifted grids laid over points."""

    points: ThinnedPoints
    config: BlockConfig
    metres: tuple[float, float]
    shift: tuple[int, int]

    def tiles(self, offset: tuple[int, int], wanted: Collection[tuple[int, int]] | None) -> Iterator[Block]:
        config, unit = self.config, self.config.voxel_size_m / self.metres[0]
        size, halo = config.voxels_per_tile, math.ceil(config.halo_m / config.voxel_size_m)
        for (i, j), core, around in squares_of(self.points.xyz, unit, offset, size, halo, halo):
            if len(core) and (wanted is None or (i, j) in wanted):
                low = np.array([i * size + offset[0], j * size + offset[1]]) * unit
                yield from self._cells((i, j), core, around, low, size * unit, 0)

    def _cells(
        self, tile: tuple[int, int], core: np.ndarray, nearby: np.ndarray, low: np.ndarray, size: float, depth: int
    ) -> Iterator[Block]:  # fmt: skip
        """The blocks of a square; those of its points that are not `core` but may be around it are `nearby`."""
        halo = self.config.halo_m / self.metres[0]
        (x_low, y_low), high = (low - halo).tolist(), size + 2 * halo
        x, y = self.points.xyz.T[:2]
        context = inside(x, y, nearby, x_low, y_low, x_low + high, y_low + high)
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
                is_part = (upper[:, 0] == right) & (upper[:, 1] == top)
                if is_part.any():
                    corner, others = (
                        low + half * np.array([right, top]),
                        np.concatenate([core[~is_part], nearby]),
                    )
                    yield from self._cells(tile, core[is_part], others, corner, half, depth + 1)

    def _block(
        self, tile: tuple[int, int], core: np.ndarray, context: np.ndarray, low: np.ndarray, size: float
    ) -> Block:  # fmt: skip
        points, rows = self.points, np.concatenate([core, context])
        is_core = np.zeros(len(rows), bool)
        is_core[: len(core)] = True
        x, y = low + size / 2
        position = np.empty((3, len(rows)), np.float32)
        z = local_positions(*points.xyz.T, rows, x, y, self.metres, position)
        origin = np.array([x, y, z])
        metres = np.array([self.metres[0], self.metres[0], self.metres[1]])
        source = None if points.source is None else points.source[rows]
        return Block(
            scan=points.scan,
            tile=tile,
            shift=self.shift,
            cell=(*low.tolist(), *(low + size).tolist()),
            origin=origin,
            position=position.T,
            height=points.height_m.take(rows),
            attributes={name: values.take(rows) for name, values in points.attributes.items()},
            label=None if points.label is None else points.label.take(rows),
            is_core=is_core,
            point_index=points.point_index.take(rows),
            voxel=rows,
            extent=(points.extent - origin) * metres,
            scans=points.scans if source is not None else (),
            source=source,
        )
