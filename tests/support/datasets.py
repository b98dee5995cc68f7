"""A small blocks dataset, written without a flow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pointcloud.blocks.features import FeatureStatistics
from pointcloud.dataset.splits import TRAIN, VAL
from pointcloud.dataset.store import Manifest, Shard, ShardWriter, write_manifest
from tests.support.clouds import SCHEME, SMALL, cut, make_cloud


def write_dataset(folder: Path) -> None:
    """One shard of a simulated scan, its blocks in turn for training and validation."""
    blocks = cut(make_cloud(300, colours=True), replace(SMALL, overlap=2))
    splits = [(TRAIN, VAL)[n % 2] for n in range(len(blocks))]
    with ShardWriter(str(folder / "shards" / "a.parquet"), len(SCHEME), None) as writer:
        writer.write(blocks, splits)
    shard = Shard("shards/a.parquet", "a.laz", {split: splits.count(split) for split in (TRAIN, VAL)})
    statistics = FeatureStatistics({"height": 1.5}, {"height": 2.0})
    manifest = Manifest(
        SMALL, SCHEME, {"val_fraction": 0.2}, (shard,), statistics, {TRAIN: [1, 2, 3]}, ("intensity",), {}
    )
    write_manifest(str(folder), manifest)
