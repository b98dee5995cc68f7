"""Labels for every point of a scan, region by region: its blocks see the neighbouring scans, memory is bounded."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pointcloud.blocks.block import Block
from pointcloud.blocks.decoded import DecodedScan
from pointcloud.blocks.region import read_region
from pointcloud.blocks.tiles import ThinnedPoints
from pointcloud.errors import ScanError
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.grid import Grid
from pointcloud.grid.voxels import occupied_cells
from pointcloud.labelling.interpolation import interpolate

Predict = Callable[[Iterable[Block]], Iterator[tuple[Block, np.ndarray]]]
"""Blocks -> each with its (N, C) logits."""
Summarise = Callable[[np.ndarray], dict[str, np.ndarray]]
"""Logits (P, C) -> what is wanted of each point, by name: (P,) or (P, …) of any type."""
Observe = Callable[[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]], None]
"""Is shown the scan's labelled voxels of a region: xyz (V, 3), voxel (V, 3), points of each (V,), what was made."""


_Votes = tuple[np.ndarray, np.ndarray, np.ndarray]


def label_points(
    decoded: DecodedScan,
    neighbours: Sequence[DecodedScan],
    config: BlockConfig,
    predict: Predict,
    summarise: Summarise,
    observe: Observe = lambda *_: None,
    folder: Path | None = None,
) -> dict[str, np.ndarray]:
    """What `summarise` makes of the logits of each point, in the order of the scan: (P, …) by name.

    A voxel's logits are averaged over all blocks in whose core it lies, one for each shift; a point's are interpolated
    between voxels. The blocks are those that `cutting` cuts there, so two scans that share a tile see the same block
    and agree.

    Args:
        decoded: the scan, with all its points (`decode_scan` with `every_point`).
        neighbours: decoded scans with the points that its tiles and halos reach; they get no label.
        observe: is shown what was labelled, region by region.
        folder: keeps the arrays as files <name>.npy, memory-mapped, however large the scan; None: in memory.

    Raises:
        ScanError: a block that cannot be cut, or lacks what `predict` needs; logits that are no numbers.
        OSError: no room for the arrays in the folder.
    """
    decoded_scans = tuple(sorted((decoded, *neighbours), key=lambda each: each.scan))
    grid = Grid.of(config, decoded.crs)
    found: dict[str, np.ndarray] = {}
    # A shifted tile may end in the next regions: its votes wait there.
    waiting: dict[tuple[int, int], list[_Votes]] = {}
    wanted = _tiles_by_region(decoded, grid)
    for region in sorted(wanted):
        here = read_region(region, decoded_scans, decoded.scan, config, None)
        logits, votes = _vote(here.thinned, predict(here.thinned.cut(config, wanted[region])))
        identity = _identity(here.thinned)
        for ids, sums, counts in waiting.pop(region, []):
            order = np.argsort(identity)
            rows = order[np.searchsorted(identity, ids, sorter=order)]
            logits[rows] += sums
            votes[rows] += counts
        home = here.thinned.voxel[:, :2] // grid.region_voxels
        beyond = np.flatnonzero((home != region).any(axis=1) & (votes > 0))
        for next_region in {(int(i), int(j)) for i, j in home[beyond]} & wanted.keys():
            rows = beyond[(home[beyond] == next_region).all(axis=1)]
            waiting.setdefault(next_region, []).append((identity[rows], logits[rows], votes[rows]))
        own_index, own_row, xyz = here.own_points(region, grid)
        if not len(own_index):
            continue
        needed, row = np.unique(own_row, return_inverse=True)
        assert votes[needed].all(), "every point that is labelled lies in the core of a block"
        mean = logits / np.maximum(votes, 1)[:, None]
        if not np.isfinite(mean).all():
            raise _no_numbers(decoded.scan, mean[votes > 0])
        observe(
            here.thinned.xyz[needed], here.thinned.voxel[needed], np.bincount(row), summarise(mean[needed])
        )
        if config.thin:
            of_points = interpolate(
                xyz, own_row, here.thinned.xyz, here.thinned.voxel, grid.voxel_size, grid.cell_voxels, mean
            )
        else:
            of_points = mean[own_row]
        for name, values in summarise(of_points).items():
            if name not in found:
                found[name] = allocate(folder, name, (decoded.num_points, *values.shape[1:]), values.dtype)
            found[name][own_index] = values
    return found


def _no_numbers(scan: str, mean: np.ndarray) -> ScanError:
    strange = np.count_nonzero(~np.isfinite(mean).all(axis=1))
    return ScanError(
        f"scan {scan!r} gets logits that are no numbers from the network for {strange:,} of {len(mean):,} voxels, "
        "expected finite ones; look for extreme values in its attributes, or train again if other scans end like this."
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
    found: dict[tuple[int, int], dict[tuple[int, int], set[tuple[int, int]]]] = {}
    for a in range(grid.tile_cells):
        for b in range(grid.tile_cells):
            tile = (decoded.cells[:, :2] - (a, b)) // grid.tile_cells
            tiles, _ = occupied_cells(tile, decoded.cell_points, np.add)
            for i, j in tiles.tolist():
                region = grid.region_of_tile((i, j), (a, b))
                found.setdefault(region, {}).setdefault((a, b), set()).add((i, j))
    return found


def _vote(
    points: ThinnedPoints, predicted: Iterable[tuple[Block, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of logits (V, C) and numbers of votes (V,) of thinned points: a halo does not vote."""
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
