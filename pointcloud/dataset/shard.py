"""One scan's shard of the blocks dataset, region after region, and the sums that the manifest is made of."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pyproj import CRS

from pointcloud.blocks.block import Block
from pointcloud.blocks.features import standardised_columns
from pointcloud.dataset.cutting import Cutting
from pointcloud.dataset.splits import TRAIN
from pointcloud.dataset.store import ROW_GROUP_BLOCKS, ShardWriter
from pointcloud.grid.kernels import moments
from pointcloud.storage import ledger


@dataclass
class ShardSums:
    """What adds up over the blocks of a shard, and over shards.

    Attributes:
        num_blocks: by split.
        num_core: points of the base grid's tiles, which is points kept.
        num_outliers: isolated points of the scan, which are in no block.
        class_counts: split -> labelled core points by class.
        moments: standardised column -> number, sum and sum of squares over the training split.
    """

    num_blocks: Counter[str] = field(default_factory=Counter)
    num_core: int = 0
    num_outliers: int = 0
    class_counts: dict[str, np.ndarray] = field(default_factory=dict)
    moments: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, block: Block, split: str, num_classes: int) -> None:
        """Add a block to the counts and moments."""
        self.num_blocks[split] += 1
        if block.shift == (0, 0):
            self.num_core += int(np.count_nonzero(block.is_core))
        if block.label is not None:
            counts = self.class_counts.setdefault(split, np.zeros(num_classes, np.int64))
            counts[: len(block.core_counts)] += block.core_counts
        if split == TRAIN:
            for name, values in standardised_columns(block).items():
                self.moments[name] = self.moments.get(name, 0) + np.array(moments(values))

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold."""
        return {
            "num_blocks": dict(sorted(self.num_blocks.items())),
            "class_counts": {split: counts.tolist() for split, counts in sorted(self.class_counts.items())},
            "moments": {name: sums.tolist() for name, sums in sorted(self.moments.items())},
        }


def write_shard(
    uri: str, cutting: Cutting, crs: CRS | None, sample_points: int = 0, min_points: int = 1
) -> ShardSums:
    """Cut a scan's own tiles and store them; nothing appears under `uri` unless all of them are there.

    Args:
        sample_points: draw every block to exactly this many points; 0: all points.
        min_points: blocks with fewer are left out.

    Raises:
        ScanError: more than `max_points` points that no cut can part.
        StorageError: `uri` cannot be written.
    """
    sums, num_classes = ShardSums(num_outliers=cutting.num_outliers), len(cutting.scheme)
    waiting: list[tuple[Block, str]] = []
    with ShardWriter(uri, num_classes, crs) as writer:
        for blocks, splits in cutting.regions():
            for block, split in zip(blocks, splits, strict=True):
                if len(block) < min_points:
                    continue
                if sample_points:
                    block = block[_draw(block, sample_points)]
                sums.add(block, split, num_classes)
                waiting.append((block, split))
            # Small regions share a row group: a shard of one-tile groups is slow to read.
            while len(waiting) >= ROW_GROUP_BLOCKS:
                writer.write(*zip(*waiting[:ROW_GROUP_BLOCKS], strict=True))
                del waiting[:ROW_GROUP_BLOCKS]
        if waiting:
            writer.write(*zip(*waiting, strict=True))
    return sums


def _draw(block: Block, num_points: int) -> np.ndarray:
    """Indices (num_points,) drawn as published (DEEPGCN's S3DIS blocks are PointNet's).

    Of more points a draw with replacement, of fewer all of them and a draw for the rest; those of the core first. The
    same for a block every time.
    """
    seed = ledger.key_of(block.scan, block.tile, block.shift, block.cell)
    drawn = np.random.default_rng(int(seed, 16)).choice(
        len(block), num_points - len(block) if len(block) < num_points else num_points
    )
    rows = np.concatenate([np.arange(len(block)), drawn]) if len(block) < num_points else drawn
    return rows[np.argsort(~block.is_core[rows], kind="stable")]
