"""A scan decoded once: its thinned points on local disk, by region, and what must be known of it to cut tiles.

A decoded scan is an Arrow file; each of its record batches holds the points of one chunk of the scan that one region
needs. It is deleted when the run no longer needs it; the format may change at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyproj import CRS

from pointcloud.cloud import Cloud
from pointcloud.errors import ScanError
from pointcloud.formats.columns import COLOURS, MAY_BE_UNFILLED, RETURNS
from pointcloud.formats.reader import NO_RETURNS, Window, colour_scale, iterate_clouds, never_filled
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.grid import Grid
from pointcloud.grid.height import lowest_points
from pointcloud.grid.kernels import coded_runs, nearest_to_centre
from pointcloud.grid.voxels import check_extent, group_by_cell, occupied_cells

_CHUNKS_ADDED_UP = 8
_WORTH_THINNING = 0.7


@dataclass(frozen=True)
class DecodedScan:
    """What was found while a scan was decoded.

    Attributes:
        scan: its name.
        path: of the Arrow file.
        crs: of the scan.
        num_points: decoded.
        extent: (2, 3) float64, smallest and largest coordinates, CRS units.
        attributes: that the scan carries, colours only where they were filled.
        colour_scale: what its colours are multiplied with to be 16 bits.
        regions: (B, 2) int64, the region of each record batch.
        cells: (T, 3) int64, occupied cells of the grid with each class code in them (0 in a scan without
            classification); cell_points: (T,) int64 decoded points of each.
        ground_cells: (G, 2) int64; ground_lowest: (G,) lowest z in each.
        notes: what was mended, left out or assumed.
    """

    scan: str
    path: Path
    crs: CRS | None
    num_points: int
    extent: np.ndarray
    attributes: tuple[str, ...]
    colour_scale: int | None
    regions: np.ndarray
    cells: np.ndarray
    cell_points: np.ndarray
    ground_cells: np.ndarray
    ground_lowest: np.ndarray
    notes: tuple[str, ...] = ()

    def batches_of(self, region: tuple[int, int]) -> list[int]:
        """Numbers of the record batches that hold points of a region."""
        return np.flatnonzero((self.regions == region).all(axis=1)).tolist()


def decode_scan(
    scan: str,
    uri: str,
    path: Path,
    config: BlockConfig,
    window: Window | None = None,
    every_point: bool = False,
    crs: CRS | None = None,
) -> DecodedScan:
    """Decode a scan chunk by chunk into an Arrow file at a local path; memory does not grow with the scan.

    Args:
        window: only points inside, as in `reader.iterate_clouds`.
        every_point: keep all, also where thinning will take most of them away: each is to get a label.
        crs: of the scan, in place of what its file says.

    Raises:
        ScanError: as `reader.iterate_clouds`, no point in the window, or stray points far from the others.
        StorageError: the scan cannot be reached.
    """
    notes: list[str] = []
    found: _Found | None = None
    with pa.OSFile(str(path), "wb") as sink:
        writer: pa.RecordBatchFileWriter | None = None
        try:
            for cloud in iterate_clouds(uri, window, notes.append, crs):
                if found is None:
                    found = _Found(
                        cloud.crs, Grid.of(config, cloud.crs), config, thins=config.thin and not every_point
                    )
                for batch in found.take(cloud):
                    writer = writer or pa.ipc.new_file(sink, batch.schema)
                    writer.write_batch(batch)
        finally:
            if writer is not None:
                writer.close()
    if found is None:
        raise ScanError(
            f"scan {uri!r} has no point in the window {window}; leave it out or choose another window."
        )
    return found.decoded_scan(scan, path, tuple(notes))


@dataclass
class _Found:
    """What adds up over the chunks of a scan."""

    crs: CRS | None
    grid: Grid
    config: BlockConfig
    thins: bool = False
    num_points: int = 0
    largest: dict[str, int] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    corners: list[np.ndarray] = field(default_factory=list)
    regions: list[np.ndarray] = field(default_factory=list)
    cells: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    ground: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def take(self, cloud: Cloud) -> Sequence[pa.RecordBatch]:
        """One record batch for each region that needs points of a chunk."""
        self._take_extent(cloud)
        self._take_cells(cloud)
        kept: np.ndarray | None = None
        xyz = cloud.xyz
        if self.thins:
            order, starts = group_by_cell(xyz.T, self.grid.voxel_size)
            kept = nearest_to_centre(order, starts, *xyz.T, *self.grid.voxel_size)
            # A decoded scan may hold several points of a voxel; where thinning takes few away it is done once, when cutting.
            self.thins = len(kept) < _WORTH_THINNING * len(cloud)
            xyz = xyz.T.take(kept, axis=1).T
        regions = self.grid.regions_of(xyz)
        self.regions.append(regions.squares)
        rows = regions.points if kept is None else kept[regions.points]
        columns = [cloud.xyz[:, axis].take(rows) for axis in range(3)]
        columns += [values.take(rows) for values in cloud.attributes.values()]
        columns.append(rows + self.num_points)
        self.num_points += len(cloud)
        self.attributes = tuple(cloud.attributes)
        table = pa.RecordBatch.from_arrays(
            [pa.array(column) for column in columns], ["x", "y", "z", *cloud.attributes, "point_index"]
        )
        ends = [*regions.starts[1:].tolist(), len(rows)]
        return [
            table.slice(start, end - start) for start, end in zip(regions.starts.tolist(), ends, strict=True)
        ]

    def _take_extent(self, cloud: Cloud) -> None:
        self.corners.append(cloud.corners())
        check_extent(np.concatenate(self.corners), self.grid.voxel_size, self.config.voxel_size_m)
        for name in MAY_BE_UNFILLED:
            if name in cloud.attributes:
                self.largest[name] = max(self.largest.get(name, 0), int(cloud.attributes[name].max()))

    def _take_cells(self, cloud: Cloud) -> None:
        x, y = cloud.xyz.T[:2]
        code = cloud.attributes.get("classification", np.zeros(len(cloud), np.uint8))
        cell, count = coded_runs(x, y, code, self.grid.voxel_size[0], self.grid.cell_voxels)
        self.cells.append(occupied_cells(cell, count, np.add))
        self.ground.append(lowest_points(cloud.xyz, 3 * self.grid.ground_size))
        if len(self.cells) >= _CHUNKS_ADDED_UP:
            self.cells, self.ground = [_add_up(self.cells, np.add)], [_add_up(self.ground, np.minimum)]

    def decoded_scan(self, scan: str, path: Path, notes: tuple[str, ...]) -> DecodedScan:
        corners = np.concatenate(self.corners)
        cells, counts = _add_up(self.cells, np.add)
        ground_cells, lowest = _add_up(self.ground, np.minimum)
        scale = colour_scale(max((self.largest.get(name, 0) for name in COLOURS), default=0))
        unfilled = never_filled(self.largest)
        if not unfilled.isdisjoint(RETURNS):
            notes = (*notes, NO_RETURNS)
        names = tuple(name for name in self.attributes if name not in unfilled)
        return DecodedScan(
            scan=scan,
            path=path,
            crs=self.crs,
            num_points=self.num_points,
            extent=np.stack([corners.min(axis=0), corners.max(axis=0)]),
            attributes=names,
            colour_scale=scale,
            regions=np.concatenate(self.regions),
            cells=cells,
            cell_points=counts,
            ground_cells=ground_cells,
            ground_lowest=lowest,
            notes=notes,
        )


def _add_up(found: list[tuple[np.ndarray, np.ndarray]], how: np.ufunc) -> tuple[np.ndarray, np.ndarray]:
    """The cells of several chunks, each once."""
    cells, values = (np.concatenate(column) for column in zip(*found, strict=True))
    return occupied_cells(cells, values, how)
