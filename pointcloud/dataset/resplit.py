"""Another split of a blocks dataset, which stays as it was cut: cross-validation cuts no block twice.

One pass over the blocks sums up every place (the blocks of one tile of one scan); any rule's split, with its counts
and its statistics, is then additions, and is kept as a *split file* of one row per place. Training reads the same
shards under it. The rule is applied as when blocks are cut (`pointcloud.dataset.splits`), only that strips are chosen
by the points kept, since those that thinning took are gone.
"""

from __future__ import annotations

import io
import json
from collections import ChainMap, Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pointcloud.blocks.block import Block
from pointcloud.blocks.features import FeatureStatistics, standardised_columns
from pointcloud.dataset import store
from pointcloud.dataset.splits import SPLITS, TRAIN, UNUSED, SplitRule, plan_split, split_of_shifted
from pointcloud.errors import SchemaError
from pointcloud.grid.kernels import moments
from pointcloud.storage import files, ledger

Place = tuple[str, int, int, int, int]
"""Scan, tile (i, j), shift (a, b): the blocks of one tile have one split, also where it was cut into quarters."""

_COLUMNS = ("scan", "tile_i", "tile_j", "shift_a", "shift_b", "split")
_RECORD = b"pointloom.split"


@dataclass
class PlaceSums:
    """What adds up over the blocks of one place.

    Attributes:
        num_blocks: number of blocks.
        class_counts: (C,) int64, labelled core points by class.
        moments: standardised column -> number, sum and sum of squares over all points, halo included.
        scans: with points in the core; more than one where the tile crosses from one scan into another.
    """

    num_blocks: int
    class_counts: np.ndarray
    moments: dict[str, np.ndarray]
    scans: set[str]

    def add(self, block: Block) -> None:
        """Add a block to the counts and moments."""
        self.num_blocks += 1
        if block.label is not None:
            labelled = block.label[block.is_core & (block.label >= 0)]
            self.class_counts += np.bincount(labelled, minlength=len(self.class_counts))
        for name, values in standardised_columns(block).items():
            self.moments[name] = self.moments.get(name, 0) + np.array(moments(values))
        if block.source is None:
            self.scans.add(block.scan)
        else:
            self.scans.update(block.scans[n] for n in np.unique(block.source[block.is_core]).tolist())


def sum_places(dataset: str, manifest: store.Manifest) -> dict[Place, PlaceSums]:
    """The sums of every place of a dataset, from one pass over its blocks.

    Raises:
        SchemaError, StorageError: as `store.read_blocks`.
    """
    sums: dict[Place, PlaceSums] = {}
    for block in store.read_blocks(dataset, manifest):
        place = _place(block)
        if place not in sums:
            sums[place] = PlaceSums(0, np.zeros(len(manifest.label_scheme), np.int64), {}, set())
        sums[place].add(block)
    return sums


def resplit(
    dataset: str, manifest: store.Manifest, sums: Mapping[Place, PlaceSums], rule: SplitRule
) -> SplitBlocks:
    """A dataset under another rule, from its manifest and the sums of its places.

    Raises:
        PointloomError: a rule that does not fit the tiles.
    """
    base: dict[str, dict[tuple[int, int], str]] = {}
    for scan in sorted({place[0] for place in sums}):
        tiles = sorted(place[1:3] for place in sums if place[0] == scan and place[3:] == (0, 0))
        counts = np.array([sums[scan, i, j, 0, 0].class_counts for i, j in tiles])
        counts = counts.reshape(len(tiles), len(manifest.label_scheme))
        planned = plan_split(
            scan, np.array(tiles).reshape(-1, 2), counts, rule, manifest.block_config.tile_size_m
        )
        base[scan] = dict(zip(tiles, planned, strict=True))
        for tile in tiles:
            # Scans that share a tile and are named for different splits: it can serve neither.
            if len(_named(sums[scan, *tile, 0, 0].scans, rule)) > 1:
                base[scan][tile] = UNUSED
    splits: dict[Place, str] = {}
    for place, of_place in sums.items():
        scan, tile, shift = place[0], place[1:3], place[3:]
        if shift == (0, 0):
            splits[place] = base[scan][tile]
        elif _named(of_place.scans, rule) != {TRAIN}:
            # Also where the tiles below had too few points to be kept.
            splits[place] = UNUSED
        else:
            # What lies below may belong to the scans that this tile shares its core with.
            owners = (scan, *sorted(of_place.scans - {scan}))
            first_owner_wins = ChainMap(*(base.get(owner, {}) for owner in owners))
            splits[place] = split_of_shifted(tile, shift, first_owner_wins)
    return SplitBlocks(dataset, _counted(manifest, sums, splits, rule), splits)


def _named(scans: set[str], rule: SplitRule) -> set[str]:
    """The splits that scans are named for as a whole; without names all train."""
    whole = SplitRule(
        val_fraction=0.0, val_scans=rule.val_scans, test_fraction=0.0, test_scans=rule.test_scans
    )
    one = np.zeros((1, 2), np.int64), np.ones((1, 1), np.int64)
    return {plan_split(scan, *one, whole, np.inf)[0] for scan in scans}


def _counted(
    manifest: store.Manifest, sums: Mapping[Place, PlaceSums], splits: Mapping[Place, str], rule: SplitRule
) -> store.Manifest:
    """The manifest with the counts and statistics that these splits have."""
    blocks: dict[str, Counter[str]] = {shard.scan: Counter() for shard in manifest.shards}
    counts = {split: np.zeros(len(manifest.label_scheme), np.int64) for split in SPLITS}
    sums_of: dict[str, np.ndarray] = {}
    for place, split in splits.items():
        blocks[place[0]][split] += sums[place].num_blocks
        counts[split] = counts.get(split, 0) + sums[place].class_counts
        if split == TRAIN:
            for name, of_place in sums[place].moments.items():
                sums_of[name] = sums_of.get(name, 0) + of_place
    return replace(
        manifest,
        split_rule=rule.to_dict(),
        shards=tuple(replace(s, num_blocks=dict(sorted(blocks[s.scan].items()))) for s in manifest.shards),
        class_counts={split: of_split.tolist() for split, of_split in sorted(counts.items())},
        statistics=FeatureStatistics.from_moments(
            # As in the dataset's own: those that every scan has.
            {name: sums_of[name] for name in sorted(sums_of.keys() & manifest.statistics.mean.keys())}
        ),
    )


@dataclass(frozen=True)
class SplitBlocks:
    """A blocks dataset under one split: that of its shards, or another of the same blocks.

    Attributes:
        dataset: folder or URI.
        manifest: whose counts and statistics are this split's.
        splits: of every place; None where the shards' own hold.
    """

    dataset: str
    manifest: store.Manifest
    splits: Mapping[Place, str] | None = None

    def read(self, split: str) -> Iterator[Block]:
        """The blocks of one split. Raises SchemaError, StorageError as `store.read_blocks`."""
        if self.splits is None:
            yield from store.read_blocks(self.dataset, self.manifest, split)
            return
        stored = store.read_manifest(self.dataset)
        wanted = {shard.scan for shard in self.manifest.shards if shard.num_blocks.get(split)}
        shards = tuple(shard for shard in stored.shards if shard.scan in wanted)
        for block in store.read_blocks(self.dataset, replace(stored, shards=shards)):
            if self.splits[_place(block)] == split:
                yield block


def open_blocks(dataset: str, split_file: str = "") -> SplitBlocks:
    """A dataset under the split of its shards, or under that of a split file.

    Raises:
        StorageError: no dataset, or no split file there.
        SchemaError: another schema version; a split file of other blocks than these.
    """
    manifest = store.read_manifest(dataset)
    if not split_file:
        return SplitBlocks(dataset, manifest)
    record, table = _read(split_file)
    if record["blocks"] != fingerprint(dataset):
        raise SchemaError(
            f"{split_file!r} splits other blocks than dataset {dataset!r} holds now; run the study again."
        )
    columns = [table.column(name).to_pylist() for name in _COLUMNS]
    splits: dict[Place, str] = {(s, i, j, a, b): split for s, i, j, a, b, split in zip(*columns, strict=True)}
    manifest = replace(
        manifest,
        split_rule=record["rule"],
        shards=tuple(replace(s, num_blocks=record["num_blocks"].get(s.scan, {})) for s in manifest.shards),
        class_counts=record["class_counts"],
        statistics=FeatureStatistics.from_dict(record["statistics"]),
    )
    return SplitBlocks(dataset, manifest, splits)


def write_split(uri: str, blocks: SplitBlocks) -> None:
    """Keep another split of a dataset's blocks as a split file: Parquet, equal splits in equal bytes."""
    manifest, rows = blocks.manifest, sorted((blocks.splits or {}).items())
    record = {
        "blocks": fingerprint(blocks.dataset),
        "rule": manifest.split_rule,
        "num_blocks": {shard.scan: shard.num_blocks for shard in manifest.shards},
        "class_counts": manifest.class_counts,
        "statistics": manifest.statistics.to_dict(),
    }
    columns = zip(*((*place, split) for place, split in rows), strict=True)
    table = pa.table(dict(zip(_COLUMNS, map(list, columns), strict=True)))
    table = table.replace_schema_metadata({_RECORD: json.dumps(record, sort_keys=True)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    files.write_bytes(uri, buffer.getvalue())


def is_written(uri: str, dataset: str, rule: SplitRule) -> bool:
    """Whether the split file is there already, of the blocks that are in `dataset` now and by this rule."""
    if not files.exists(uri):
        return False
    try:
        record, _ = _read(uri)
    except SchemaError:
        return False
    return ledger.key_of(record["blocks"], record["rule"]) == ledger.key_of(
        fingerprint(dataset), rule.to_dict()
    )


def fingerprint(dataset: str) -> str:
    """What tells one set of blocks from another: the hash of its manifest."""
    return files.content_hash(files.join(dataset, store.MANIFEST))


def _read(uri: str) -> tuple[dict[str, Any], pa.Table]:
    try:
        table = pq.read_table(io.BytesIO(files.read_bytes(uri)))
        return json.loads(table.schema.metadata[_RECORD]), table
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise SchemaError(f"{uri!r} is not a split file; delete it and run the study again.") from error


def _place(block: Block) -> Place:
    (i, j), (a, b) = block.tile, block.shift
    return block.scan, i, j, a, b
