"""Polygons to review: one file for each CRS, the most doubtful first, and a file also when nothing is to be seen."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
from pyproj import CRS

from pointcloud.blocks.block import Block
from pointcloud.grid.block_config import BlockConfig
from pointcloud.quality import review_polygons
from pointcloud.quality.doubtful_tiles import TileDoubts, read_tiles
from pointcloud.storage import geoparquet
from tests.pointcloud.quality.test_doubtful_tiles import CRS_M, make_doubts
from tests.pointcloud.test_crs import UNUSUAL


def test_doubtful_tiles_and_quarantined_scans_by_crs(tmp_path: Path) -> None:
    make_doubts()[0].write(uri := str(tmp_path / "a.parquet"))
    tiles = read_tiles(uri)
    feet = CRS.from_epsg(2225)
    uris = review_polygons.write(
        str(tmp_path / "review"),
        [
            review_polygons.doubtful(tiles, 0.65),
            review_polygons.whole_scan("bad.laz", "it is damaged", (1.0, 2.0, 3.0, 4.0), CRS_M),
            review_polygons.whole_scan("far.laz", "it is damaged", (1.0, 2.0, 3.0, 4.0), feet),
        ],
    )
    package, *parquet = uris
    assert [Path(u).name for u in uris] == ["review.gpkg", "review.parquet", "review-2.parquet"]
    by_crs = {
        json.loads(t.schema.metadata[b"geo"])["columns"]["footprint"]["crs"]["name"]: t.to_pylist()
        for t in map(pq.read_table, parquet)
    }
    metric = by_crs[CRS_M.name]
    assert [row["scan"] for row in metric] == ["a.laz"] * 3 + ["bad.laz"]
    assert [row["reason"] for row in metric[:2]] == ["mean confidence 0.40", "mean confidence 0.50"]
    assert struct.unpack("<10d", metric[-1]["footprint"][13:]) == (1, 2, 3, 2, 3, 4, 1, 4, 1, 2)
    assert [row["scan"] for row in by_crs[feet.name]] == ["far.laz"]
    assert review_polygons.crs_name(tiles) == CRS_M.name
    # As GDAL reads it: a layer for each CRS, the same rows in the same order, places in x and y.
    assert pyogrio.list_layers(package).tolist() == [["review", "Polygon"], ["review-2", "Polygon"]]
    info, table = pyogrio.read_arrow(package, layer="review")
    assert CRS(info["crs"]) == CRS_M
    columns = [name for name in table.column_names if name in pq.read_schema(parquet[0]).names]
    assert table.select(columns).to_pylist() == [{name: row[name] for name in columns} for row in metric]
    assert set(columns) >= {"scan", "reason", "i", "j", "num_points", "confidence", "x", "y", "z"}
    assert pyogrio.read_bounds(package, layer="review-2")[1].ravel().tolist() == [1, 2, 3, 4]
    assert CRS(pyogrio.read_info(package, layer="review-2")["crs"]) == feet


def test_what_an_earlier_review_had_more_is_removed(tmp_path: Path) -> None:
    scans = [
        review_polygons.whole_scan(f"{n}.laz", "bad", (1.0, 2.0, 3.0, 4.0), CRS.from_epsg(2225 + n))
        for n in range(3)
    ]
    (tmp_path / "review-notes.parquet").write_text("of somebody else")
    assert len(review_polygons.write(str(tmp_path), scans)) == 4
    package, *uris = review_polygons.write(str(tmp_path), scans[:2])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "review-2.parquet", "review-notes.parquet", "review.gpkg", "review.parquet",
    ]  # fmt: skip
    assert [row["scan"] for uri in uris for row in pq.read_table(uri).to_pylist()] == ["0.laz", "1.laz"]
    assert len(pyogrio.list_layers(package)) == 2


def test_nothing_to_review_is_a_file_without_rows(tmp_path: Path) -> None:
    package, uri = review_polygons.write(str(tmp_path), [])
    assert len(pq.read_table(uri)) == 0
    assert pyogrio.read_info(package)["features"] == 0


@pytest.mark.parametrize("kind", UNUSUAL)
def test_a_crs_of_any_kind_is_named_and_written(tmp_path: Path, kind: str) -> None:
    row = review_polygons.whole_scan("a.laz", "bad", (1.0, 2.0, 3.0, 4.0), UNUSUAL[kind])
    assert review_polygons.crs_name(row)
    package, parquet = review_polygons.write(str(tmp_path), [row])
    assert pyogrio.read_bounds(package)[1].ravel().tolist() == [1, 2, 3, 4]
    assert pq.read_table(parquet)["scan"].to_pylist() == ["a.laz"]


CONFIG = BlockConfig(tile_size_m=16, halo_m=1, voxel_size_m=0.5)
CLASSES = ("ground", "vegetation", "building")


def tiles_with(doubtful_at: Sequence[tuple[float, float]], folder: Path, crs: CRS | None = CRS_M) -> pa.Table:
    """The tiles of a scan of 32 m × 32 m, sure but within 2 m of some places."""
    rng = np.random.default_rng(4)
    xyz = rng.uniform((0, 0, 0), (31.5, 32, 5), (8000, 3))
    near = np.zeros(len(xyz), bool)
    for place in doubtful_at:
        near |= np.abs(xyz[:, :2] - place).max(axis=1) < 2
    labels = {
        "classes": np.where(near, 2, 0).astype(np.uint8),
        "confidence": np.where(near, 0.5, 0.99).astype(np.float32),
    }
    doubts = TileDoubts("a.laz", CONFIG, crs, np.array([xyz.min(axis=0), xyz.max(axis=0)]), len(CLASSES))
    doubts.add(xyz, np.floor(xyz / 0.5).astype(np.int64), np.ones(len(xyz), np.int64), labels)
    doubts.write(uri := str(folder / "a.parquet"))
    return read_tiles(uri)


def test_doubtful_points_close_together_in_a_sure_tile_are_a_polygon(tmp_path: Path) -> None:
    tiles = tiles_with([(8, 8), (24, 6)], tmp_path)
    assert min(tiles["confidence"].to_pylist()) > 0.9
    assert len(review_polygons.doubtful(tiles, 0.6)) == 0
    rows = review_polygons.clusters(tiles, 0.6, CLASSES).to_pylist()
    assert {(row["i"], row["j"]) for row in rows} == {(0, 0), (1, 0)}
    for row, place in zip(sorted(rows, key=lambda row: row["i"]), ((8, 8), (24, 6)), strict=True):
        box = [place[0] - 2, place[1] - 2, place[0] + 2, place[1] + 2]
        assert geoparquet.bounds([row["footprint"]])[0].tolist() == box
        assert row["area_m2"] == 16
        assert row["doubtful_points"] == row["num_points"] > 100
        assert row["confidence"] == pytest.approx(0.5)
        assert row["class"] == "building"
        assert (
            f"{row['doubtful_points']} doubtful points close together, most of them building" == row["reason"]
        )
    assert len(review_polygons.clusters(tiles, 0.5, CLASSES)) == 0, "none is below"
    assert len(review_polygons.clusters(tiles, 0.0, CLASSES)) == 0
    # GDAL opens it as any other row.
    package, _ = review_polygons.write(
        str(tmp_path / "review"), [review_polygons.clusters(tiles, 0.6, CLASSES)]
    )
    assert pyogrio.read_info(package)["features"] == 2


def test_area_is_square_metres_also_in_feet(tmp_path: Path) -> None:
    feet = tiles_with([(8, 8)], tmp_path, CRS.from_epsg(2225))
    (row, *_) = review_polygons.clusters(feet, 0.6, CLASSES).to_pylist()
    metres = tiles_with([(8, 8)], tmp_path)
    assert row["area_m2"] <= review_polygons.clusters(metres, 0.6, CLASSES).to_pylist()[0]["area_m2"]


def test_a_cluster_ends_with_the_scan_and_few_points_are_none(tmp_path: Path) -> None:
    (row,) = review_polygons.clusters(tiles_with([(31, 24)], tmp_path), 0.6, CLASSES).to_pylist()
    assert geoparquet.bounds([row["footprint"]])[0][2] < 31.5
    tiles = tiles_with([(8, 8)], tmp_path)
    column = tiles.column_names.index("cell_below")
    few = pa.array([[below // 20 for below in of_tile] for of_tile in tiles["cell_below"].to_pylist()])
    fewer = tiles.set_column(column, tiles.field(column), few.cast(tiles.field(column).type))
    assert len(review_polygons.clusters(fewer, 0.6, CLASSES)) == 0


def test_so_many_clusters_of_a_scan_the_largest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = tiles_with([(4, 4), (20, 4), (20, 8), (4, 20), (20, 20)], tmp_path)
    counts = review_polygons.clusters(tiles, 0.6, CLASSES)["doubtful_points"].to_pylist()
    assert counts == sorted(counts, reverse=True)
    assert len(counts) == 4
    monkeypatch.setattr(review_polygons, "MOST_CLUSTERS", 2)
    assert review_polygons.clusters(tiles, 0.6, CLASSES)["doubtful_points"].to_pylist() == counts[:2]


def test_tiles_unlike_the_training_come_first_however_sure(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    xyz = rng.uniform((0, 0, 0), (48, 16, 5), (3000, 3))
    voxel = np.floor(xyz / 0.5).astype(np.int64)
    tile = voxel[:, 0] // 32
    doubts = TileDoubts("a.laz", CONFIG, CRS_M, np.array([xyz.min(axis=0), xyz.max(axis=0)]), 3, limit=2.0)
    sure = np.where(tile == 0, 0.5, 0.99).astype(np.float32)
    labels = {"classes": np.zeros(len(xyz), np.uint8), "confidence": sure}
    for n, far in enumerate((1.0, 3.0, 1.5)):
        for shift in ((0, 0), (1, 0)):
            block = make_block(n, shift)
            # The halo, and the shifted grid, are of other tiles.
            distances = np.where(block.is_core & (shift == (0, 0)), far, 99.0).astype(np.float32)
            doubts.add_distances(block, distances)
    doubts.add(xyz, voxel, np.ones(len(xyz), np.int64), labels)
    doubts.write(uri := str(tmp_path / "a.parquet"))
    tiles = read_tiles(uri)

    assert tiles["unlikeness"].to_pylist() == [0.5, 1.5, 0.75]
    assert doubts.share_unlike == pytest.approx(1 / 3)
    found = [review_polygons.doubtful(tiles, 0.6), review_polygons.unlike(tiles, 0.6)]
    rows = pq.read_table(review_polygons.write(str(tmp_path / "review"), found)[1]).to_pylist()
    assert [row["i"] for row in rows] == [1, 0]
    assert rows[0]["reason"] == (
        "unlike what the network was trained on, 1.5 times as far from it as the limit; its confidence of 0.99 "
        "says little"
    )


def test_where_nothing_is_known_of_the_training_no_tile_is_unlike_it(tmp_path: Path) -> None:
    tiles = tiles_with([], tmp_path)

    assert tiles["unlikeness"].null_count == len(tiles)
    assert len(review_polygons.unlike(tiles, 0.6)) == 0
    assert len(review_polygons.unlike(tiles.drop_columns(["unlikeness"]), 0.6)) == 0


def make_block(tile: int, shift: tuple[int, int]) -> Block:
    return Block(
        scan="a.laz",
        tile=(tile, 0),
        shift=shift,
        cell=(0.0, 0.0, 16.0, 16.0),
        origin=np.zeros(3),
        position=np.zeros((6, 3), np.float32),
        height=np.zeros(6, np.float32),
        attributes={},
        label=None,
        is_core=np.arange(6) < 4,
        point_index=np.arange(6),
    )
