"""Polygons to review: one file for each CRS, the most doubtful first, and a file also when nothing is to be seen."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pyarrow.parquet as pq
import pyogrio
import pytest
from pyproj import CRS

from pointcloud.quality import review_polygons
from pointcloud.quality.doubtful_tiles import read_tiles
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
