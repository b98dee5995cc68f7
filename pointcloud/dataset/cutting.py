"""From decoded scans to the blocks of a scan: its tiles with what neighbouring scans have in them and around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pointcloud.blocks.block import Block
from pointcloud.blocks.decoded import DecodedScan
from pointcloud.blocks.ground import Ground
from pointcloud.blocks.region import read_region
from pointcloud.dataset.splits import TRAIN, UNUSED, SplitRule, is_mixed, plan_split, split_of_shifted
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.grid import Grid
from pointcloud.grid.voxels import occupied_cells
from pointcloud.labels import LabelScheme

Shift = tuple[int, int]
Tile = tuple[int, int]


@dataclass(frozen=True)
class Cutting:
    """One scan's tiles, ready to be cut region by region.

    A tile that several scans have points in belongs to the one that has most of them, of equals to the first by
    name; so every point is in the core of one block for each shift, whichever files a survey comes in.

    Attributes:
        scan: its name.
        decoded_scans: the scan and its neighbours, in the order of their names: the same points for every reader.
        config, scheme: how to cut.
        splits: shift -> tile -> split, of the scan's own tiles.
        ground: below the decoded scans.
    """

    scan: str
    decoded_scans: tuple[DecodedScan, ...]
    config: BlockConfig
    scheme: LabelScheme
    splits: dict[Shift, dict[Tile, str]]
    ground: Ground

    @property
    def num_outliers(self) -> int:
        """Isolated points of the scan, which are in no block."""
        own = next(decoded for decoded in self.decoded_scans if decoded.scan == self.scan)
        return self.ground.num_outliers(own)

    def regions(self) -> Iterator[tuple[list[Block], list[str]]]:
        """The blocks of each region, and their splits, in the order of the regions.

        Raises:
            ScanError: more than `max_points` points that no cut can part.
        """
        grid = Grid.of(self.config, self.decoded_scans[0].crs)
        wanted: dict[tuple[int, int], dict[Shift, set[Tile]]] = {}
        for shift, tiles in self.splits.items():
            for tile in tiles:
                region = grid.region_of_tile(tile, shift)
                wanted.setdefault(region, {}).setdefault(shift, set()).add(tile)
        for region in sorted(wanted):
            points = read_region(
                region, self.decoded_scans, self.ground, self.scan, self.config, self.scheme
            ).thinned
            blocks = list(points.cut(self.config, wanted[region]))
            yield blocks, [self.splits[block.shift][block.tile] for block in blocks]


def plan_cutting(
    decoded: DecodedScan,
    neighbours: Sequence[DecodedScan],
    config: BlockConfig,
    scheme: LabelScheme,
    rule: SplitRule,
) -> Cutting:
    """Which tiles are a scan's own, and the split of each.

    Args:
        decoded: the scan to be cut.
        neighbours: of scans in the same CRS that have points in its tiles or around them.

    Raises:
        PointloomError: a split rule that does not fit the tiles.
    """
    decoded_scans = tuple(sorted((decoded, *neighbours), key=lambda each: each.scan))
    position = [each.scan for each in decoded_scans].index(decoded.scan)
    holders = _holders(decoded_scans, position, (0, 0), config)
    own = sorted(_own_tiles(decoded_scans, position, holders))
    tiles = np.array(own, np.int64).reshape(-1, 2)
    counts = _class_counts(decoded_scans, tiles, config, scheme)
    planned = plan_split(decoded.scan, tiles, counts, rule, config.tile_size_m)
    base = {
        tile: UNUSED if is_mixed([decoded_scans[n].scan for n in holders[tile]], rule) else split
        for tile, split in zip(own, planned, strict=True)
    }
    splits: dict[Shift, dict[Tile, str]] = {(0, 0): base}
    # A shifted tile may reach into ground that other scans hold out.
    around = base | {
        tile: _split_of_others(
            tile, [decoded_scans[n].scan for n in _by_rank(decoded_scans, of)], rule, config
        )
        for tile, of in holders.items()
        if tile not in base
    }
    for a in range(config.overlap):
        for b in range(config.overlap):
            if (a, b) != (0, 0):
                shifted = _own_tiles(
                    decoded_scans, position, _holders(decoded_scans, position, (a, b), config)
                )
                splits[a, b] = {tile: split_of_shifted(tile, (a, b), around) for tile in sorted(shifted)}
    return Cutting(decoded.scan, decoded_scans, config, scheme, splits, Ground.of(decoded_scans, config))


def _holders(
    decoded_scans: tuple[DecodedScan, ...], own: int, shift: Shift, config: BlockConfig
) -> dict[Tile, dict[int, int]]:
    """The tiles in and beside those of one scan -> which decoded scans have points in them, and how many."""
    found: dict[Tile, dict[int, int]] = {}
    cells = decoded_scans[own].cells[:, :2]
    low, high = (
        (cells.min(axis=0) - shift) // config.overlap - 1,
        (cells.max(axis=0) - shift) // config.overlap + 1,
    )
    for n, decoded in enumerate(decoded_scans):
        tile = (decoded.cells[:, :2] - shift) // config.overlap
        near = ((tile >= low) & (tile <= high)).all(axis=1)
        tiles, points = occupied_cells(tile[near], decoded.cell_points[near], np.add)
        for (i, j), count in zip(tiles.tolist(), points.tolist(), strict=True):
            found.setdefault((i, j), {})[n] = count
    return found


def _by_rank(decoded_scans: tuple[DecodedScan, ...], of: dict[int, int]) -> list[int]:
    """The decoded scans that have points in a tile, first the one whose scan the tile belongs to."""
    return sorted(of, key=lambda n: (-of[n], decoded_scans[n].scan))


def _own_tiles(
    decoded_scans: tuple[DecodedScan, ...], own: int, holders: dict[Tile, dict[int, int]]
) -> list[Tile]:
    return [tile for tile, of in holders.items() if own in of and _by_rank(decoded_scans, of)[0] == own]


def _split_of_others(tile: Tile, scans: list[str], rule: SplitRule, config: BlockConfig) -> str:
    """The split of a tile that belongs to another scan; unused where that scan's strips, not known here, decide."""
    if is_mixed(scans, rule):
        return UNUSED
    place = np.array([tile]), np.ones((1, 1), np.int64)
    named = plan_split(scans[0], *place, rule, config.tile_size_m)[0]
    by_strips = not (rule.area_size_m or rule.val_scans) and (rule.val_fraction or rule.test_fraction)
    return UNUSED if named == TRAIN and by_strips else named


def _class_counts(
    decoded_scans: tuple[DecodedScan, ...], tiles: np.ndarray, config: BlockConfig, scheme: LabelScheme
) -> np.ndarray:
    """(T, C) decoded points by class in each tile of the base grid; (T, 1) where no scan has classes."""
    row = {tile: n for n, tile in enumerate(map(tuple, tiles.tolist()))}
    labelled = any("classification" in decoded.attributes for decoded in decoded_scans)
    counts = np.zeros((len(tiles), len(scheme) if labelled else 1), np.int64)
    for decoded in decoded_scans:
        rows = np.array(
            [row.get((i, j), -1) for i, j in (decoded.cells[:, :2] // config.overlap).tolist()], int
        )
        index = scheme.to_indices(decoded.cells[:, 2], decoded.scan) if labelled else np.zeros(len(rows), int)
        if labelled and "classification" not in decoded.attributes:
            continue
        here = (rows >= 0) & (index >= 0)
        np.add.at(counts, (rows[here], index[here]), decoded.cell_points[here])
    return counts
