"""The blocks dataset: what is written is what is read, and a map for others."""

from __future__ import annotations

import json
import struct
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyproj import CRS

from pointcloud.blocks.block import Block
from pointcloud.blocks.features import FeatureStatistics
from pointcloud.dataset import store
from pointcloud.dataset.splits import TRAIN, UNUSED, VAL
from pointcloud.dataset.store import (
    MANIFEST,
    Manifest,
    Shard,
    ShardWriter,
    read_blocks,
    read_manifest,
    write_manifest,
)
from pointcloud.errors import SchemaError, StorageError
from tests.support.clouds import SCHEME, SMALL, assert_one_sentence, cut, make_cloud

BLOCKS = cut(make_cloud(500, corner=(652_000.0, 6_600_000.0, 30.0), colours=True), replace(SMALL, overlap=2))
SPLITS = [(TRAIN, VAL, UNUSED)[i % 3] for i in range(len(BLOCKS))]


def manifest_of(*shards: Shard) -> Manifest:
    statistics = FeatureStatistics({"height": 1.5}, {"height": 2.0})
    return Manifest(
        SMALL, SCHEME, {"val_fraction": 0.2}, shards, statistics, {TRAIN: [1, 2, 3]}, ("intensity",), {}
    )


def write(folder: Path, blocks: list[Block], splits: list[str], crs: CRS | None = None) -> Manifest:
    with ShardWriter(str(folder / "shards" / "a.parquet"), len(SCHEME), crs) as writer:
        writer.write(blocks[:7], splits[:7])
        writer.write(blocks[7:], splits[7:])
    counts = {split: splits.count(split) for split in set(splits)}
    return manifest_of(Shard("shards/a.parquet", "a.laz", counts))


def assert_same(one: Block, other: Block) -> None:
    for field in fields(Block):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "voxel":
            assert b is None
        elif field.name == "attributes":
            assert set(a) == set(b)
            for name in a:
                np.testing.assert_array_equal(a[name], b[name], strict=True)
        elif isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, strict=True)
        else:
            assert a == b


def test_blocks_come_back_equal_split_by_split(tmp_path: Path) -> None:
    assert len(BLOCKS) > 2 * 16, "more than two row groups"
    manifest = write(tmp_path, BLOCKS, SPLITS)
    for split in (TRAIN, VAL, UNUSED):
        expected = [b for b, s in zip(BLOCKS, SPLITS, strict=True) if s == split]
        found = list(read_blocks(str(tmp_path), manifest, split))
        assert manifest.num_blocks(split) == len(expected) == len(found)
        for one, other in zip(expected, found, strict=True):
            assert_same(one, other)


def test_a_scan_without_labels_and_colours_has_nulls(tmp_path: Path) -> None:
    (bare,) = cut(make_cloud(30, extent=(7.0, 7.0, 2.0), labelled=False))
    bare = replace(bare, attributes={})
    manifest = write(tmp_path, [bare], [TRAIN])
    (found,) = read_blocks(str(tmp_path), manifest, TRAIN)
    assert_same(bare, found)
    (found,) = read_blocks(str(tmp_path), replace(manifest, filled={"intensity": 40}), TRAIN)
    assert found.attributes["intensity"].tolist() == [40] * len(bare)
    row = pq.read_table(tmp_path / "shards" / "a.parquet").to_pylist()[0]
    for column in ("label", "red", "green", "blue", "intensity", "return_number", "number_of_returns"):
        assert row[column] is None
    assert row["class_counts"] == [0, 0, 0]


def test_the_same_blocks_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write(tmp_path / name, BLOCKS, SPLITS, CRS("EPSG:2154"))
        write_manifest(str(tmp_path / name), manifest_of())
    for name in ("shards/a.parquet", MANIFEST):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_scalar_columns_say_what_the_lists_hold(tmp_path: Path) -> None:
    write(tmp_path, BLOCKS, SPLITS)
    table = pq.read_table(tmp_path / "shards" / "a.parquet")
    assert table.schema.names == store.BLOCK_SCHEMA.names
    for block, row in zip(BLOCKS, table.to_pylist(), strict=True):
        assert row["num_points"] == len(block) == len(row["x"])
        assert row["num_core"] == sum(block.is_core)
        core = row["label"][: row["num_core"]]
        assert row["class_counts"] == [core.count(c) for c in range(len(SCHEME))]


@pytest.mark.parametrize("crs", [None, "EPSG:2154", "EPSG:32119+6360"])
def test_the_file_is_a_map(tmp_path: Path, crs: str | None) -> None:
    write(tmp_path, BLOCKS, SPLITS, CRS(crs) if crs else None)
    table = pq.read_table(tmp_path / "shards" / "a.parquet")
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] == "footprint"
    column = geo["columns"]["footprint"]
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["Polygon"]
    # GeoParquet: a missing crs would mean longitude and latitude.
    assert "crs" in column
    assert column["crs"] is None if crs is None else CRS.from_json_dict(column["crs"]) == CRS(crs)
    for row in table.to_pylist():
        order, kind, rings, points = struct.unpack_from("<BIII", row["footprint"])
        assert (order, kind, rings, points) == (1, 3, 1, 5)
        ring = np.array(struct.unpack_from("<10d", row["footprint"], 13)).reshape(5, 2)
        assert len(row["footprint"]) == 13 + 80
        np.testing.assert_array_equal(ring[0], ring[4])
        assert [*ring.min(axis=0), *ring.max(axis=0)] == row["cell"]
        x, y = ring.T
        assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0, "counter-clockwise"


def test_a_manifest_comes_back_equal(tmp_path: Path) -> None:
    manifest = replace(
        manifest_of(
            Shard("shards/a.parquet", "a.laz", {TRAIN: 3, VAL: 1}), Shard("b", "sub/b.laz", {TRAIN: 2})
        ),
        quarantined={"c.laz": "cannot be read."},
    )
    write_manifest(str(tmp_path), manifest)
    assert read_manifest(str(tmp_path)) == manifest
    assert manifest.num_blocks(TRAIN) == 5
    assert manifest.num_blocks(VAL) == 1
    assert manifest.num_blocks(UNUSED) == 0


def test_no_manifest_no_dataset(tmp_path: Path) -> None:
    write(tmp_path, BLOCKS, SPLITS)
    with pytest.raises(SchemaError, match="run the preprocess flow first") as error:
        read_manifest(str(tmp_path))
    assert_one_sentence(error, str(tmp_path))


def drop(key: str) -> Any:
    return lambda record: {k: v for k, v in record.items() if k != key}


@pytest.mark.parametrize(
    "change",
    [
        drop("shards"),
        drop("block_config"),
        drop("label_scheme"),
        drop("statistics"),
        drop("schema_version"),
        lambda r: {**r, "schema_version": 1},
        lambda r: {**r, "shards": [{"file": "a"}]},
        lambda r: {**r, "block_config": {"size": 3}},
        lambda r: {**r, "shards": None},
        lambda r: {**r, "shards": [{"path": "../other/a.parquet", "scan": "a", "num_blocks": {}}]},
        lambda r: {**r, "shards": [{"path": "/etc/passwd", "scan": "a", "num_blocks": {}}]},
        lambda r: {**r, "shards": [{"path": "a.parquet", "scan": "a", "num_blocks": {"train": -1}}]},
        lambda r: {**r, "class_counts": 3},
        lambda r: {**r, "attributes": [3]},
        lambda r: {**r, "quarantined": []},
        lambda r: [r],
        lambda r: 7,
    ],
)
def test_manifests_of_another_schema_are_refused(tmp_path: Path, change: Any) -> None:
    write_manifest(str(tmp_path), manifest_of())
    path = tmp_path / MANIFEST
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(SchemaError) as error:
        read_manifest(str(tmp_path))
    assert_one_sentence(error, "")


def test_a_shard_of_another_schema_version_is_refused(tmp_path: Path) -> None:
    manifest = write(tmp_path, BLOCKS[:3], SPLITS[:3])
    path = tmp_path / "shards" / "a.parquet"
    table = pq.read_table(path)
    for version in ({"pointloom.schema_version": "1"}, None):
        pq.write_table(table.replace_schema_metadata(version), path)
        with pytest.raises(SchemaError, match="schema version") as error:
            list(read_blocks(str(tmp_path), manifest, TRAIN))
        assert_one_sentence(error, "a.parquet")


def test_a_damaged_shard_is_one_sentence(tmp_path: Path) -> None:
    manifest = write(tmp_path, BLOCKS, SPLITS)
    path = tmp_path / "shards" / "a.parquet"
    content = path.read_bytes()
    middle = len(content) // 2
    for damaged in (
        b"", b"no Parquet", content[:middle], content[:100] + bytes(middle - 100) + content[middle:],
        content.replace(b"num_core", b"num_\xe9ore"),
    ):  # fmt: skip
        path.write_bytes(damaged)
        with pytest.raises(SchemaError, match="is damaged") as error:
            list(read_blocks(str(tmp_path), manifest, TRAIN))
        assert_one_sentence(error, "a.parquet")


def test_a_missing_shard_is_said_and_one_without_the_split_not_opened(tmp_path: Path) -> None:
    manifest = manifest_of(Shard("shards/gone.parquet", "gone.laz", {TRAIN: 1}))
    with pytest.raises(StorageError, match=r"gone\.parquet"):
        list(read_blocks(str(tmp_path), manifest, TRAIN))
    assert list(read_blocks(str(tmp_path), manifest, VAL)) == []


def test_the_schema_tells_what_each_column_is() -> None:
    assert all((field.metadata or {}).get(b"doc") for field in store.BLOCK_SCHEMA)
    assert store.BLOCK_SCHEMA.field("x").type == pa.list_(pa.field("element", pa.float32(), nullable=False))
    assert store.BLOCK_SCHEMA.field("origin").type == pa.list_(pa.float64(), 3)
