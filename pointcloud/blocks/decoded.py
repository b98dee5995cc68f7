"""A scan decoded once: its thinned points on local disk, by region, and the figures that are needed to cut tiles.

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

from pointcloud.cloud import WITHHELD, Cloud
from pointcloud.errors import ScanError
from pointcloud.formats.columns import COLOURS, MAY_BE_UNFILLED, RETURNS, num_wrong_returns
from pointcloud.formats.reader import Window, about_returns, colour_scale, iterate_clouds, never_filled
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.grid import Grid
from pointcloud.grid.kernels import coded_runs, nearest_to_centre
from pointcloud.grid.noise import height_profile, merge_profiles
from pointcloud.grid.voxels import check_extent, group_by_cell, occupied_cells
from pointcloud.labels import NOISE_CODES

_CHUNKS_ADDED_UP = 8
"""So many tables of chunks are joined at a time: it bounds memory, and joining after each chunk would take longer."""
_WORTH_THINNING = 0.7
"""Chunks are thinned while at most this share of their points is left: above, sorting costs more than it saves."""


@dataclass(frozen=True)
class DecodedScan:
    """What was found while a scan was decoded.

    Attributes:
        scan: its name.
        path: of the Arrow file.
        crs: of the scan.
        num_points: decoded, those left out included.
        extent: (2, 3) float64, smallest and largest coordinates, CRS units.
        attributes: that the scan carries, colours and return numbers only where they were filled.
        colour_scale: what its colours are multiplied with to be 16 bits.
        regions: (B, 2) int64, the region of each record batch.
        cells: (T, 3) int64, occupied cells of the grid with each class code in them (0 in a scan without
            classification); cell_points: (T,) int64 points of each. Points marked as noise are not in them.
        bins: (K, 3) int64, occupied bins of height of the ground cells, sorted; bin_points: (K,) int64 points in
            each; bin_lowest: (K,) float64 lowest z in each. See `pointcloud.grid.noise`.
        noise_codes: class codes that mark noise.
        num_marked: points that were left out because the scan marks them as noise or as withheld.
        notes: what was mended, left out or assumed.
        single_returns: whether it has no return numbers, or such that were never filled or cannot be: to be labelled,
            its points count as single returns.
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
    bins: np.ndarray
    bin_points: np.ndarray
    bin_lowest: np.ndarray
    noise_codes: tuple[int, ...] = ()
    num_marked: int = 0
    notes: tuple[str, ...] = ()
    single_returns: bool = False

    def batches_of(self, region: tuple[int, int]) -> list[int]:
        """Indices of the record batches that hold points of a region."""
        return np.flatnonzero((self.regions == region).all(axis=1)).tolist()


def decode_scan(
    scan: str,
    uri: str,
    path: Path,
    config: BlockConfig,
    window: Window | None = None,
    every_point: bool = False,
    noise_codes: tuple[int, ...] = NOISE_CODES,
    crs: CRS | None = None,
) -> DecodedScan:
    """Decode a scan chunk by chunk into an Arrow file at a local path; memory does not grow with the scan.

    Args:
        window: only points inside, as in `reader.iterate_clouds`.
        every_point: keep all, also where thinning will take most of them away: each is to get a label.
        noise_codes: class codes that mark noise. Points that have one, or the flag withheld, are left out where the
            config excludes noise; they count in `num_points`, so that `point_index` is the place in the scan.
        crs: of the scan, in place of what its file says.

    Raises:
        ScanError: as `reader.iterate_clouds`, no point in the window, none that is not marked as noise, or stray points
            far from the others.
        StorageError: the scan cannot be reached.
    """
    notes: list[str] = []
    sums: _Sums | None = None
    with pa.OSFile(str(path), "wb") as sink:
        writer: pa.RecordBatchFileWriter | None = None
        try:
            for cloud in iterate_clouds(uri, window, notes.append, crs):
                if sums is None:
                    grid = Grid.of(config, cloud.crs)
                    thins = config.thin and not every_point
                    sums = _Sums(cloud.crs, grid, config, noise_codes, thins)
                for batch in sums.add(cloud):
                    writer = writer or pa.ipc.new_file(sink, batch.schema)
                    writer.write_batch(batch)
        finally:
            if writer is not None:
                writer.close()
    if sums is None:
        raise ScanError(
            f"scan {uri!r} has no point in the window {window}; leave it out or choose another window."
        )
    if not sums.corners:
        raise ScanError(
            f"scan {uri!r} marks all of its {sums.num_points:,} points as noise or as withheld; leave it out, or use "
            "them with noise 'use'."
        )
    return sums.decoded_scan(scan, path, tuple(notes))


@dataclass
class _Sums:
    """What adds up over the chunks of a scan."""

    crs: CRS | None
    grid: Grid
    config: BlockConfig
    noise_codes: tuple[int, ...]
    thins: bool
    num_points: int = 0
    num_marked: int = 0
    num_wrong_returns: int = 0
    largest: dict[str, int] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    corners: list[np.ndarray] = field(default_factory=list)
    regions: list[np.ndarray] = field(default_factory=list)
    cells: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    profiles: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, chunk: Cloud) -> Sequence[pa.RecordBatch]:
        """Add a chunk of the scan to the sums; one record batch for each region that needs points of it."""
        cloud, places = self._without_marked(chunk)
        first = self.num_points
        self.num_points += len(chunk)
        self.num_marked += len(chunk) - len(cloud)
        if not len(cloud):
            return []
        self._add_extent(cloud)
        self._add_cells(cloud)
        kept: np.ndarray | None = None
        xyz = cloud.xyz
        if self.thins:
            order, starts = group_by_cell(xyz.T, self.grid.voxel_size)
            kept = nearest_to_centre(order, starts, *xyz.T, *self.grid.voxel_size)
            # A decoded scan may hold several points of a voxel; where thinning takes few away it is done once, when
            # cutting.
            self.thins = len(kept) < _WORTH_THINNING * len(cloud)
            xyz = xyz.T.take(kept, axis=1).T
        regions = self.grid.regions_of(xyz)
        self.regions.append(regions.squares)
        rows = regions.points if kept is None else kept[regions.points]
        columns = [cloud.xyz[:, axis].take(rows) for axis in range(3)]
        columns += [values.take(rows) for values in cloud.attributes.values()]
        columns.append((rows if places is None else places[rows]) + first)
        self.attributes = tuple(cloud.attributes)
        table = pa.RecordBatch.from_arrays(
            [pa.array(column) for column in columns], ["x", "y", "z", *cloud.attributes, "point_index"]
        )
        ends = [*regions.starts[1:].tolist(), len(rows)]
        return [
            table.slice(start, end - start) for start, end in zip(regions.starts.tolist(), ends, strict=True)
        ]

    def _without_marked(self, cloud: Cloud) -> tuple[Cloud, np.ndarray | None]:
        """A chunk without the points that are marked as noise; their places in it (n,), None where all are left."""
        attributes = dict(cloud.attributes)
        marked = attributes.pop(WITHHELD, None)
        if marked is not None:
            cloud = Cloud(cloud.xyz, attributes, cloud.crs)
        if not self.config.excludes_noise:
            return cloud, None
        if "classification" in attributes and self.noise_codes:
            is_noise = np.zeros(256, bool)
            is_noise[list(self.noise_codes)] = True
            by_code = is_noise[attributes["classification"]]
            marked = by_code if marked is None else marked | by_code
        if marked is None or not marked.any():
            return cloud, None
        places = np.flatnonzero(~marked)
        return cloud[places], places

    def _add_extent(self, cloud: Cloud) -> None:
        self.corners.append(cloud.corners())
        check_extent(np.concatenate(self.corners), self.grid.voxel_size, self.config.voxel_size_m)
        for name in MAY_BE_UNFILLED:
            if name in cloud.attributes:
                self.largest[name] = max(self.largest.get(name, 0), int(cloud.attributes[name].max()))
        self.num_wrong_returns += num_wrong_returns(cloud.attributes)

    def _add_cells(self, cloud: Cloud) -> None:
        x, y = cloud.xyz.T[:2]
        code = cloud.attributes.get("classification", np.zeros(len(cloud), np.uint8))
        cell, count = coded_runs(x, y, code, self.grid.voxel_size[0], self.grid.cell_voxels)
        self.cells.append(occupied_cells(cell, count, np.add))
        self.profiles.append(height_profile(cloud.xyz, self.grid.ground_size, self.grid.bin_size))
        if len(self.cells) >= _CHUNKS_ADDED_UP:
            self.cells, self.profiles = [self._all_cells()], [self._whole_profile()]

    def _all_cells(self) -> tuple[np.ndarray, np.ndarray]:
        cells, counts = (np.concatenate(column) for column in zip(*self.cells, strict=True))
        return occupied_cells(cells, counts, np.add)

    def _whole_profile(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return merge_profiles(*(np.concatenate(column) for column in zip(*self.profiles, strict=True)))

    def decoded_scan(self, scan: str, path: Path, notes: tuple[str, ...]) -> DecodedScan:
        corners = np.concatenate(self.corners)
        cells, counts = self._all_cells()
        bins, bin_points, bin_lowest = self._whole_profile()
        scale = colour_scale(max((self.largest.get(name, 0) for name in COLOURS), default=0))
        wrong_returns = self.num_wrong_returns / (self.num_points - self.num_marked)
        unfilled = never_filled(self.largest, wrong_returns)
        notes = (*notes, *about_returns(self.largest, wrong_returns))
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
            bins=bins,
            bin_points=bin_points,
            bin_lowest=bin_lowest,
            noise_codes=self.noise_codes,
            num_marked=self.num_marked,
            notes=notes,
            single_returns=not unfilled.isdisjoint(RETURNS) or set(RETURNS).isdisjoint(self.attributes),
        )
