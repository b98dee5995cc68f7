"""The points that a region's tiles need, read from a decoded scan and its decoded neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pointcloud.blocks.decoded import DecodedScan
from pointcloud.blocks.ground import Ground
from pointcloud.blocks.tiles import ThinnedPoints
from pointcloud.formats.columns import COLOURS, RETURNS
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.grid import Grid
from pointcloud.grid.height import height_above
from pointcloud.grid.kernels import nearest_to_centre
from pointcloud.grid.voxels import group_by_cell
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
        outliers: (m,) int64, places in the scan of its own points that were left out as outliers.
        axes: x, y and z, (n,) float64 each, CRS units; None where points are to train, not to be labelled.
    """

    thinned: ThinnedPoints
    order: np.ndarray
    starts: np.ndarray
    index: np.ndarray
    is_own: np.ndarray
    outliers: np.ndarray
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
    region: tuple[int, int],
    decoded_scans: Sequence[DecodedScan],
    ground: Ground,
    scan: str,
    config: BlockConfig,
    scheme: LabelScheme | None,
) -> Region:
    """The points of a region and around it, without outliers.

    Args:
        region: place on the grid.
        decoded_scans: the scan and its neighbours, in the order of their names: the same points for every reader.
        ground: of these scans.
        scan: the scan whose tiles are to be cut.
        scheme: label scheme of the labels; None: no labels are read.
    """
    own = next(n for n, decoded in enumerate(decoded_scans) if decoded.scan == scan)
    grid = Grid.of(config, decoded_scans[own].crs)
    tables, outliers = [], [np.empty(0, np.int64)]
    for n, decoded in enumerate(decoded_scans):
        for table in _read(decoded, region):
            is_outlier = ground.is_outlier(table["x"], table["y"], table["z"])
            if is_outlier is not None:
                if n == own:
                    outliers.append(table["point_index"][is_outlier])
                table = {name: values[~is_outlier] for name, values in table.items()}
            tables.append((n, table))
    counts = [len(table["x"]) for _, table in tables]
    source = np.repeat(np.array([n for n, _ in tables], np.uint16), counts)
    index = _joined([table["point_index"] for _, table in tables])
    axes = tuple(_joined([table[name] for _, table in tables]) for name in "xyz")
    order, starts = group_by_cell(axes, grid.voxel_size)
    if config.thin:
        kept = nearest_to_centre(order, starts, *axes, *grid.voxel_size)
    else:
        kept, starts = order, np.arange(len(order))
    present = [decoded_scans[n] for n in sorted({n for n, _ in tables})]
    names = set.intersection(*(_attributes_of(decoded, scheme is None) for decoded in present))
    attributes = {
        name: _settled(
            _joined([_attribute(table, name) for _, table in tables]).take(kept),
            name,
            source,
            kept,
            decoded_scans,
        )
        for name in sorted(names)
    }
    label = None
    if scheme is not None and any("classification" in decoded.attributes for decoded in present):
        label = _joined([_labels(table, scheme, decoded_scans[n].scan) for n, table in tables]).take(kept)
    is_own = source == own
    xyz = np.empty((3, len(kept)))
    for axis, column in zip(xyz, axes, strict=True):
        column.take(kept, out=axis, mode="clip")  # the default mode would go through another copy
    xyz = xyz.T
    thinned = ThinnedPoints(
        scan=scan,
        xyz=xyz,
        height=height_above(xyz, 3 * grid.ground_size, ground.cells, ground.lowest),
        attributes=attributes,
        label=label,
        voxel_size=grid.voxel_size,
        point_index=index.take(kept),
        extent=decoded_scans[own].extent,
        crs=decoded_scans[own].crs,
        scans=tuple(decoded.scan for decoded in decoded_scans),
        source=source[kept] if len(decoded_scans) > 1 else None,
    )
    return Region(
        thinned, order, starts, index, is_own, np.concatenate(outliers), axes if scheme is None else None
    )


def _read(decoded: DecodedScan, region: tuple[int, int]) -> Iterator[dict[str, np.ndarray]]:
    numbers = decoded.batches_of(region)
    if not numbers:
        return
    with pa.memory_map(str(decoded.path)) as file:
        reader = pa.ipc.open_file(file)
        for number in numbers:
            batch = reader.get_batch(number)
            yield {name: batch.column(name).to_numpy() for name in batch.schema.names}


def _joined(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Columns one after the other; a single one is not copied."""
    return columns[0] if len(columns) == 1 else np.concatenate(columns)


def _attribute(table: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A column; zeros where the scan has none, as that of return numbers, which `_settled` fills."""
    return table[name] if name in table else np.zeros(len(table["x"]), np.uint8)


def _labels(table: dict[str, np.ndarray], scheme: LabelScheme, scan: str) -> np.ndarray:
    if "classification" not in table:
        return np.full(len(table["x"]), IGNORE, np.int8)
    return scheme.to_labels(table["classification"], scan)


def _attributes_of(decoded: DecodedScan, to_label: bool) -> set[str]:
    """Attributes of a scan but its classes; a network that needs return numbers labels single returns too."""
    single = set(RETURNS) if to_label and decoded.single_returns else set()
    return set(decoded.attributes) - {"classification"} | single


def _settled(
    values: np.ndarray, name: str, source: np.ndarray, kept: np.ndarray, decoded_scans: Sequence[DecodedScan]
) -> np.ndarray:
    """Colours of 8 bits as 16, and return numbers that a scan has not as those of single returns, scan by scan."""
    if name in COLOURS:
        factor = np.array([decoded.colour_scale or 1 for decoded in decoded_scans], np.uint16)
        return values * factor[source[kept]]
    if name in RETURNS and any(decoded.single_returns for decoded in decoded_scans):
        is_single = np.array([decoded.single_returns for decoded in decoded_scans])
        return np.where(is_single[source[kept]], values.dtype.type(1), values)
    return values
