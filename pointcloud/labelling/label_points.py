"""Labels for every point of a scan, region by region: its blocks see the neighbouring scans, memory is bounded."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pointcloud.blocks.block import Block
from pointcloud.blocks.decoded import DecodedScan
from pointcloud.blocks.ground import Ground
from pointcloud.blocks.region import read_region
from pointcloud.blocks.tiles import ThinnedPoints
from pointcloud.errors import ScanError
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.grid import Grid
from pointcloud.grid.voxels import occupied_cells
from pointcloud.labelling.interpolation import interpolate
from pointcloud.labelling.options import MARKED, OUTLIER

Predict = Callable[[Iterable[Block]], Iterator[tuple[Block, np.ndarray]]]
"""Blocks -> each with its (N, C) logits."""
Summarise = Callable[[np.ndarray], dict[str, np.ndarray]]
"""Logits (P, C) -> what is wanted of each point, by name: (P,) or (P, …) of any type."""
ShowVoxels = Callable[[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]], None]
"""Called with the scan's labelled voxels of a region: the points that stand for them, xyz (V, 3) in CRS units; their
places on the grid (V, 3); how many of the scan's points lie in each (V,); and what `Summarise` returns for them."""

_Cell = tuple[int, int]


def label_points(
    decoded: DecodedScan,
    neighbours: Sequence[DecodedScan],
    config: BlockConfig,
    predict: Predict,
    summarise: Summarise,
    show_voxels: ShowVoxels = lambda *_: None,
    folder: Path | None = None,
) -> dict[str, np.ndarray]:
    """What `summarise` makes of the logits of each point, in the order of the scan: (P, …) by name.

    A voxel's logits are averaged over all blocks in whose core it lies, one for each shift; a point's are interpolated
    between voxels. The blocks are those that `cutting` cuts there, so two scans that share a tile see the same block
    and agree.

    Where the config excludes noise and the scan holds some, "noise" is among the names: (P,) uint8, 0 for labelled
    points, `MARKED` for points that the scan marks as noise or as withheld, `OUTLIER` for isolated ones that were
    found. Noise gets no label: everything else is 0 there.

    Args:
        decoded: the scan, with all its points (`decode_scan` with `every_point`).
        neighbours: decoded scans with the points that its tiles and halos reach; they get no label.
        show_voxels: called for each region that holds points of the scan.
        folder: keeps the arrays as files <name>.npy, memory-mapped, however large the scan; None: in memory.

    Raises:
        ScanError: a block that cannot be cut, or lacks what `predict` needs; logits that are NaN or infinite; a scan
            all of whose points are isolated.
        OSError: no room for the arrays in the folder.
    """
    decoded_scans = tuple(sorted((decoded, *neighbours), key=lambda each: each.scan))
    grid, ground = Grid.of(config, decoded.crs), Ground.of(decoded_scans, config)
    values_of_points: dict[str, np.ndarray] = {}
    num_labelled = 0
    noise: np.ndarray | None = None
    if decoded.num_marked or ground.num_outliers(decoded):
        noise = allocate(folder, "noise", (decoded.num_points,), np.dtype(np.uint8))
        noise[:] = MARKED
    tiles = _tiles_by_region(decoded, grid)
    votes = _Votes(decoded.scan, grid, tiles)
    for region in sorted(tiles):
        read = read_region(region, decoded_scans, ground, decoded.scan, config, None)
        mean = votes.mean_logits(region, read.thinned, predict(read.thinned.cut(config, tiles[region])))
        index, row, xyz = read.own_points(region, grid)
        if noise is not None:
            noise[read.outliers] = OUTLIER
            noise[index] = 0
        num_labelled += len(index)
        if not len(index):
            continue
        needed, row_of_needed = np.unique(row, return_inverse=True)
        show_voxels(
            read.thinned.xyz[needed],
            read.thinned.voxel[needed],
            np.bincount(row_of_needed),
            summarise(mean[needed]),
        )
        of_points = _of_points(read.thinned, xyz, row, mean, grid) if config.thin else mean[row]
        for name, values in summarise(of_points).items():
            if name not in values_of_points:
                shape = (decoded.num_points, *values.shape[1:])
                values_of_points[name] = allocate(folder, name, shape, values.dtype)
            values_of_points[name][index] = values
    if not num_labelled:
        raise ScanError(
            f"scan {decoded.scan!r} holds only isolated points, far below or above those of its neighbours; leave it "
            "out, or use them with noise 'use'."
        )
    return values_of_points if noise is None else {**values_of_points, "noise": noise}


def _of_points(
    thinned: ThinnedPoints, xyz: np.ndarray, row: np.ndarray, mean: np.ndarray, grid: Grid
) -> np.ndarray:
    """Logits of points (P, 3), each in the voxel of a row (P,), interpolated between those of voxels (V, C)."""
    return interpolate(xyz, row, thinned.xyz, thinned.voxel, grid.voxel_size, grid.cell_voxels, mean)


class _Votes:
    """Sums the logits of blocks by voxel, region after region.

    A shifted tile may end in the next regions: the votes of its points there are kept until their region is read.

    Args:
        regions: those that will be read.
    """

    def __init__(self, scan: str, grid: Grid, regions: Collection[_Cell]) -> None:
        self._scan, self._grid, self._regions = scan, grid, set(regions)
        self._waiting: dict[_Cell, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}

    def mean_logits(
        self, region: _Cell, points: ThinnedPoints, predicted: Iterable[tuple[Block, np.ndarray]]
    ) -> np.ndarray:
        """Mean logits (V, C) of the points of a region; 0 for those in no core, which are others' to label.

        Raises:
            ScanError: NaN or infinite logits.
        """
        logits, votes = _sum_of_cores(points, predicted)
        identity = _identity(points)
        for ids, sums, counts in self._waiting.pop(region, []):
            if not logits.shape[1]:
                logits = np.zeros((len(logits), sums.shape[1]), np.float32)
            order = np.argsort(identity)
            rows = order[np.searchsorted(identity, ids, sorter=order)]
            logits[rows] += sums
            votes[rows] += counts
        home = points.voxel[:, :2] // self._grid.region_voxels
        beyond = np.flatnonzero((home != region).any(axis=1) & (votes > 0))
        for next_region in {(int(i), int(j)) for i, j in home[beyond]} & self._regions:
            rows = beyond[(home[beyond] == next_region).all(axis=1)]
            self._waiting.setdefault(next_region, []).append((identity[rows], logits[rows], votes[rows]))
        mean: np.ndarray = logits / np.maximum(votes, 1)[:, None]
        if not np.isfinite(mean).all():
            raise self._not_finite(mean[votes > 0])
        return mean

    def _not_finite(self, mean: np.ndarray) -> ScanError:
        bad = np.count_nonzero(~np.isfinite(mean).all(axis=1))
        return ScanError(
            f"scan {self._scan!r} gets NaN or infinite logits from the network for {bad:,} of {len(mean):,} voxels, "
            "expected finite ones; look for extreme values in its attributes, or train again if other scans end like "
            "this."
        )


def allocate(folder: Path | None, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros to be filled. Raises OSError where the folder's disk has no room for them."""
    if folder is None:
        return np.zeros(shape, dtype)
    path = folder / f"{name}.npy"
    values = np.lib.format.open_memmap(str(path), "w+", dtype, shape)
    # A mapped file has no blocks until it is written to, and then a full disk is a signal that ends the process.
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, max(1, path.stat().st_size))
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a filesystem that reserves nothing
                raise
    return values


def _tiles_by_region(
    decoded: DecodedScan, grid: Grid
) -> dict[tuple[int, int], dict[tuple[int, int], set[tuple[int, int]]]]:
    """Region -> shift -> the tiles beginning there that the scan has points in."""
    tiles_by_region: dict[tuple[int, int], dict[tuple[int, int], set[tuple[int, int]]]] = {}
    for a in range(grid.tile_cells):
        for b in range(grid.tile_cells):
            tile = (decoded.cells[:, :2] - (a, b)) // grid.tile_cells
            occupied, _ = occupied_cells(tile, decoded.cell_points, np.add)
            for i, j in occupied.tolist():
                region = grid.region_of_tile((i, j), (a, b))
                tiles_by_region.setdefault(region, {}).setdefault((a, b), set()).add((i, j))
    return tiles_by_region


def _sum_of_cores(
    points: ThinnedPoints, predicted: Iterable[tuple[Block, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of logits (V, C) and numbers of votes (V,) of thinned points (V,): a halo does not vote."""
    sums, votes = np.zeros((len(points.xyz), 0), np.float32), np.zeros(len(points.xyz), np.int32)
    for block, logits in predicted:
        if not sums.shape[1]:
            sums = np.zeros((len(points.xyz), logits.shape[1]), np.float32)
        assert block.voxel is not None
        core = block.voxel[block.is_core]
        sums[core] += logits[block.is_core]
        votes[core] += 1
    return sums, votes


def _identity(points: ThinnedPoints) -> np.ndarray:
    """(V,) int64, the same for a point whichever region it is read for: its scan and its place there."""
    source = 0 if points.source is None else points.source.astype(np.int64)
    return points.point_index + (source << np.int64(48))
