"""Every file with polygons is GeoParquet 1.1 by its rules, as the validator of geoparquet.org has them.

GDAL's Parquet driver, which QGIS reads with, is in no wheel on PyPI; the rules that it relies on are checked instead.
"""

from __future__ import annotations

import json
from pathlib import Path

import geoparquet_validator
import pyarrow.parquet as pq
import pytest
from pyproj import CRS

from pointcloud.quality import review_polygons
from tests.pointcloud.dataset.test_store import BLOCKS, SPLITS
from tests.pointcloud.dataset.test_store import write as write_blocks
from tests.pointcloud.quality.test_doubtful_tiles import make_doubts

BOX = (652_000.0, 6_862_000.0, 652_100.0, 6_862_100.0)
CRSS = {
    "metres": CRS(2154),
    "feet and heights": CRS("EPSG:2225+6360"),
    "northing first": CRS(2180),
    "bound to WGS 84": CRS.from_proj4("+proj=utm +zone=33 +ellps=intl +towgs84=-87,-98,-121 +units=m"),
    "of a site": CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]'),
    "none": None,
}


def assert_geoparquet(path: Path | str, num_polygons: int) -> None:
    report = geoparquet_validator.check(str(path))
    assert report["version"] == "1.1.0"
    # The other classes are advice for large files: a column of boxes, an order in space.
    assert geoparquet_validator.failed(report, "core") == []
    said = {outcome["id"].rpartition("/")[2]: outcome for outcome in report["outcomes"]}
    assert said["wkb"]["message"] == f"`footprint`: {num_polygons} values decoded, 0 null"
    geo = json.loads(pq.read_schema(path).metadata[b"geo"])
    has_crs = geo["columns"]["footprint"]["crs"] is not None
    assert said["crs-projjson"]["status"] == ("pass" if has_crs else "skip")


@pytest.mark.parametrize("crs", CRSS.values(), ids=CRSS)
def test_polygons_to_review(tmp_path: Path, crs: CRS | None) -> None:
    _, uri = review_polygons.write(
        str(tmp_path), [review_polygons.whole_scan("bad.laz", "it is damaged", BOX, crs)] * 2
    )
    assert_geoparquet(uri, 2)


def test_nothing_to_review(tmp_path: Path) -> None:
    _, uri = review_polygons.write(str(tmp_path), [])
    assert_geoparquet(uri, 0)


def test_tiles_of_a_scan(tmp_path: Path) -> None:
    make_doubts()[0].write(uri := str(tmp_path / "a.parquet"))
    assert_geoparquet(uri, 6)


@pytest.mark.parametrize("crs", [CRSS["metres"], None], ids=["metres", "none"])
def test_blocks(tmp_path: Path, crs: CRS | None) -> None:
    write_blocks(tmp_path, BLOCKS, SPLITS, crs)
    assert_geoparquet(tmp_path / "shards" / "a.parquet", len(BLOCKS))


def test_what_is_not_as_it_says_is_found(tmp_path: Path) -> None:
    _, uri = review_polygons.write(
        str(tmp_path), [review_polygons.whole_scan("bad.laz", "it is damaged", BOX, CRS(2154))]
    )
    table = pq.read_table(uri)
    for wrong in ({"geometry_types": ["Point"]}, {"crs": "EPSG:2154"}, {"encoding": "WKT"}):
        geo = json.loads(table.schema.metadata[b"geo"])
        geo["columns"]["footprint"] |= wrong
        pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), uri)
        assert geoparquet_validator.failed(geoparquet_validator.check(uri), "core")
