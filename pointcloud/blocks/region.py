"""The points that a region's tiles need, read from the parts of a scan and its neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pointcloud.blocks.decoded import Part
from pointcloud.blocks.tiles import ThinnedPoints
from pointcloud.formats.columns import COLOURS
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.grid import Grid
from pointcloud.grid.height import height_above
from pointcloud.grid.kernels import nearest_to_centre
from pointcloud.grid.voxels import group_by_cell, occupied_cells
from pointcloud.labels import IGNORE, LabelScheme


@dataclass(frozen=True)
class Region:
    """Points read for a region (n of them) and what is left of them after thinning (V).

    Attributes:
        thinned: one point per voxel, or all.
        order: (n,) int64, points by voxel; starts: (V,) int64, where in it those begin that each thinned point
            stands for.
        index: (n,) int64, places in their scans.
        is_own: (n,) bool, whether a point is of the scan whose tiles are to be cut.
        axes: x, y and z, (n,) float64 each, CRS units; None where points are to train, not to be labelled.
    """

    thinned: ThinnedPoints
    order: np.ndarray
    starts: np.ndarray
    index: np.ndarray
    is_own: np.ndarray
    axes: tuple[np.ndarray, ...] | None

    def own_points(self, region: tuple[int, int], grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The scan's own points whose home is a region: place in the scan (m,), row of `thinned` (m,), xyz (m, 3)."""
        is_home = (self.thinned.voxel[:, :2] // grid.region_voxels == region).all(axis=1)
        row = np.repeat(np.arange(len(self.starts)), np.diff(self.starts, append=len(self.order)))
        mine = np.flatnonzero(self.is_own[self.order] & is_home[row])
        points = self.order[mine]
        assert self.axes is not None, "points that train get no label"
        return self.index[points], row[mine], np.stack([axis.take(points) for axis in self.axes], axis=1)


def read_region(
    region: tuple[int, int], parts: Sequence[Part], scan: str, config: BlockConfig, scheme: LabelScheme | None
) -> Region:
    """The points of a region and around it.

    Args:
        region: place on the grid.
        parts: of the scan and its neighbours, by name: whoever reads a place takes the same points there.
        scan: whose tiles are to be cut.
        scheme: of the labels, None for none.
    """
    own = next(n for n, part in enumerate(parts) if part.scan == scan)
    grid = Grid.of(config, parts[own].crs)
    tables = [(n, table) for n, part in enumerate(parts) for table in _read(part, region)]
    counts = [len(table["x"]) for _, table in tables]
    source = np.repeat(np.array([n for n, _ in tables], np.uint16), counts)
    index = _joined([table["point_index"] for _, table in tables])
    axes = tuple(_joined([table[name] for _, table in tables]) for name in "xyz")
    order, starts = group_by_cell(axes, grid.voxel_size)
    if config.thin:
        kept = nearest_to_centre(order, starts, *axes, *grid.voxel_size)
    else:
        kept, starts = order, np.arange(len(order))
    present = [parts[n] for n in sorted({n for n, _ in tables})]
    names = set.intersection(*(set(part.attributes) - {"classification"} for part in present))
    attributes = {
        name: _scaled(_joined([table[name] for _, table in tables]).take(kept), name, source, kept, parts)
        for name in sorted(names)
    }
    label = None
    if scheme is not None and any("classification" in part.attributes for part in present):
        label = _joined([_labels(table, scheme) for _, table in tables]).take(kept)
    is_own = source == own
    xyz = np.empty((3, len(kept)))
    for axis, column in zip(xyz, axes, strict=True):
        column.take(kept, out=axis, mode="clip")  # the default mode would go through another copy
    xyz = xyz.T
    ground = occupied_cells(
        np.concatenate([part.ground_cells for part in parts]),
        np.concatenate([part.ground_lowest for part in parts]),
        np.minimum,
    )
    thinned = ThinnedPoints(
        scan=scan,
        xyz=xyz,
        height=height_above(xyz, 3 * grid.ground_size, *ground),
        attributes=attributes,
        label=label,
        voxel_size=grid.voxel_size,
        point_index=index.take(kept),
        extent=parts[own].extent,
        crs=parts[own].crs,
        scans=tuple(part.scan for part in parts),
        source=source[kept] if len(parts) > 1 else None,
    )
    return Region(thinned, order, starts, index, is_own, axes if scheme is None else None)


def _read(part: Part, region: tuple[int, int]) -> Iterator[dict[str, np.ndarray]]:
    numbers = part.batches_of(region)
    if not numbers:
        return
    with pa.memory_map(str(part.path)) as file:
        reader = pa.ipc.open_file(file)
        for number in numbers:
            batch = reader.get_batch(number)
            yield {name: batch.column(name).to_numpy() for name in batch.schema.names}


def _joined(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Columns one after the other; a single one as it is, which many a region has."""
    return columns[0] if len(columns) == 1 else np.concatenate(columns)


def _labels(table: dict[str, np.ndarray], scheme: LabelScheme) -> np.ndarray:
    if "classification" not in table:
        return np.full(len(table["x"]), IGNORE, np.int8)
    return scheme.to_indices(table["classification"])


def _scaled(
    values: np.ndarray, name: str, source: np.ndarray, kept: np.ndarray, parts: Sequence[Part]
) -> np.ndarray:
    """Colours of 8 bits as 16, scan by scan."""
    if name in COLOURS:
        factor = np.array([part.colour_scale or 1 for part in parts], np.uint16)
        values = values * factor[source[kept]]
    return values
