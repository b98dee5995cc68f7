"""Clouds with classes of every format: found by name without the format, rooms among them, and read alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pointcloud.delivery.las_copy import output_name, write_labelled
from pointcloud.delivery.read_back import find_clouds, iterate_classified, iterate_confidence, stem_of
from pointcloud.delivery.table_copy import write_exported
from pointcloud.errors import ScanError
from pointcloud.formats.reader import read_cloud
from pointcloud.labelling.options import LabelOptions
from tests.pointcloud.delivery.test_scan_columns import CODES, SHARES, annotated, arrays, scanned, structured
from tests.support.clouds import read_labelled
from tests.support.odd_las import descriptor, extra_bytes_record, write_odd_las


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.copc.laz", "a"),
        ("sub/a.b.PLY", "sub/a.b"),
        ("a.npz", "a"),
        ("a.E57", "a"),
        ("Area_1/office_1", "Area_1/office_1"),
        ("v1.2/room.old", "v1.2/room.old"),
    ],
)
def test_a_scan_and_its_labelled_cloud_have_one_stem(name: str, stem: str) -> None:
    assert stem_of(name) == stem_of(f"{stem}.parquet") == stem
    assert stem_of(output_name(name)) == stem_of(output_name(name, "parquet")) == stem


def test_rooms_and_files_are_found_and_tables_of_anything_else_are_not(tmp_path: Path) -> None:
    annotated(tmp_path / "Area_1")
    arrays(tmp_path)
    (tmp_path / "tiles/Area_1").mkdir(parents=True)
    pq.write_table(pa.table({"scan": ["room_1"]}), tmp_path / "tiles/Area_1/room_1.parquet")
    assert [source.name for source in find_clouds([str(tmp_path)])] == ["Area_1/room_1", "a.npz"]
    assert [source.name for source in find_clouds([str(tmp_path / "Area_1/room_1")])] == ["room_1"]


@pytest.mark.parametrize("make", [arrays, annotated])
def test_truth_of_any_format_is_read(tmp_path: Path, make) -> None:
    scan = make(tmp_path)
    truth, none = read_labelled(str(scan))
    assert none is None
    labelled = tmp_path / "labelled" / output_name(scan.name)
    write_exported(str(scan), str(labelled), CODES, SHARES, LabelOptions(), {})
    cloud, confidence = read_labelled(str(labelled))
    np.testing.assert_array_equal(cloud.xyz, truth.xyz)
    np.testing.assert_array_equal(cloud.attributes["classification"], CODES)
    np.testing.assert_array_equal(
        truth.attributes["classification"], read_cloud(str(scan)).attributes["classification"]
    )
    np.testing.assert_array_equal(confidence, SHARES)


@pytest.mark.parametrize("make", [structured, scanned])
def test_a_scan_without_classes_is_no_truth(tmp_path: Path, make) -> None:
    with pytest.raises(ScanError, match="has no classification to score"):
        next(iterate_classified(str(make(tmp_path))))


def test_a_parquet_file_is_read_chunk_by_chunk_and_a_bad_chunk_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pointcloud.delivery.read_back.CHUNK_POINTS", 40)
    path = tmp_path / "a.parquet"
    x, codes = np.arange(100.0), np.full(100, 2, np.uint8)
    # Row groups that no chunk ends with; an intensity that is read twice, because it is stretched over the whole scan.
    columns = {"x": x, "y": x, "z": x, "Classification": codes, "intensity": x / 100}
    pq.write_table(pa.table(columns), path, row_group_size=64)
    chunks = list(iterate_classified(str(path)))
    assert len(chunks) > 2
    assert max(map(len, chunks)) <= 40
    cloud, none = read_labelled(str(path))
    assert none is None
    np.testing.assert_array_equal(cloud.xyz[:, 0], x)
    np.testing.assert_array_equal(cloud.attributes["intensity"], np.rint(x / 100 * 65535))
    x[80] = np.nan
    pq.write_table(pa.table(columns), path, row_group_size=64)
    with pytest.raises(ScanError, match=r"a\.parquet', from point \d+ on: 1 of .* NaN"):
        list(iterate_classified(str(path)))
    path.write_bytes(path.read_bytes().replace(b"intensity", b"intensit\xe9"))
    with pytest.raises(ScanError, match=r"cannot read scan .*a\.parquet'"):
        list(iterate_classified(str(path)))
    assert [source.name for source in find_clouds([str(tmp_path)])] == ["a.parquet"]
    pq.write_table(pa.table(columns).slice(0, 0), path)
    with pytest.raises(ScanError, match="holds no points"):
        list(iterate_classified(str(path)))


@pytest.mark.parametrize("suffix", [".las", ".laz", ".ply", ".parquet"])
def test_confidence_is_what_labelling_wrote_beside_one_of_the_scan_s_own(tmp_path: Path, suffix: str) -> None:
    record = extra_bytes_record(descriptor(b"confidence", 1))
    scan, out = write_odd_las(tmp_path / "scan.las", [record], num_extra=1), str(tmp_path / f"out{suffix}")
    codes, sure = np.full(20, 6, np.uint8), (np.arange(20) / 20).astype(np.float32)
    if suffix in (".las", ".laz"):
        write_labelled(str(scan), out, codes, sure)
    else:
        write_exported(str(scan), out, codes, sure, LabelOptions(), {})
    np.testing.assert_allclose(np.concatenate(list(iterate_confidence(out))), sure, atol=0.005)
