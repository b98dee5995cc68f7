"""PLY and Parquet: every point with every dimension, readable by others, and nothing written that differs."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np
import pyarrow.parquet as pq
import pytest
from pyproj import CRS

from pointcloud.delivery import table_copy
from pointcloud.delivery.extra_dimensions import ENTROPY
from pointcloud.delivery.proof import Written
from pointcloud.delivery.table_copy import write_exported
from pointcloud.errors import PointloomError, ScanError
from pointcloud.formats.reader import read_cloud
from pointcloud.labelling.options import LabelOptions
from pointcloud.storage import files
from tests.support.clouds import write_las
from tests.support.labelled_copies import CODES, NUM, SHARES, rich

OPTIONS = LabelOptions(keep_original=True, min_confidence=0.3)


def export(scan: Path, out: Path) -> Written:
    entropy = np.arange(NUM, dtype=np.uint8)
    return write_exported(str(scan), str(out), CODES, SHARES.astype(np.float32), OPTIONS, {ENTROPY: entropy})


def expected_codes() -> np.ndarray:
    return np.where(np.rint(SHARES * 100) < 30, 1, CODES)


def test_parquet_holds_every_dimension_and_the_crs(scan: Path, tmp_path: Path) -> None:
    counts, proof = export(scan, tmp_path / "out/a.parquet")
    table, las = pq.read_table(tmp_path / "out/a.parquet"), laspy.read(scan)
    columns = {name: table[name].to_numpy() for name in table.column_names}
    for name in las.point_format.dimension_names:
        values = np.asarray(las[name])
        if name in ("X", "Y", "Z", "classification"):
            continue
        found = (
            np.stack([columns[f"{name}_{n}"] for n in range(3)], axis=1)
            if values.ndim == 2
            else columns[name]
        )
        np.testing.assert_array_equal(found, values, err_msg=name)
    np.testing.assert_array_equal(np.stack([columns[axis] for axis in "xyz"], axis=1), las.xyz)
    np.testing.assert_array_equal(columns["classification"], expected_codes())
    np.testing.assert_array_equal(columns["original_classification"], np.asarray(las.classification))
    np.testing.assert_array_equal(columns["confidence"], SHARES.astype(np.float32))
    np.testing.assert_allclose(columns["entropy"], 0.004 * np.arange(NUM), rtol=1e-6)
    np.testing.assert_array_equal(counts, np.bincount(expected_codes(), minlength=256))
    assert proof.points == NUM
    assert set(proof.dimensions) == set(columns)
    assert proof.content == files.fingerprint(str(tmp_path / "out/a.parquet"))
    assert "no place" in proof.changed["header fields, VLRs, EVLRs"]
    assert CRS.from_wkt(table.schema.metadata[b"pointloom.crs"].decode()) == las.header.parse_crs()


def test_ply_is_read_back_by_our_own_reader(scan: Path, tmp_path: Path) -> None:
    export(scan, tmp_path / "a.ply")
    cloud, before = read_cloud(str(tmp_path / "a.ply")), read_cloud(str(scan))
    np.testing.assert_array_equal(cloud.xyz, before.xyz)
    np.testing.assert_array_equal(cloud.attributes["classification"], expected_codes())
    np.testing.assert_array_equal(cloud.attributes["intensity"], before.attributes["intensity"])
    header = (tmp_path / "a.ply").read_bytes().split(b"end_header")[0].decode()
    assert "comment crs: " in header
    assert "property float amplitude" in header
    assert "property float confidence" in header


def test_a_dimension_that_has_our_name_keeps_it(tmp_path: Path) -> None:
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.add_extra_dim(laspy.ExtraBytesParams("confidence", np.float64))
    theirs = np.random.default_rng(0).random(NUM)
    source = write_las(tmp_path / "a.las", NUM, header=header, confidence=theirs)
    export(source, tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    np.testing.assert_array_equal(table["confidence"].to_numpy(), theirs)
    np.testing.assert_array_equal(table["confidence_pointloom"].to_numpy(), SHARES.astype(np.float32))


def test_what_ply_cannot_hold_is_said(tmp_path: Path) -> None:
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.add_extra_dim(laspy.ExtraBytesParams("id", np.uint64))
    source = write_las(tmp_path / "a.las", NUM, header=header)
    with pytest.raises(ScanError, match="dimension 'id'"):
        export(source, tmp_path / "out/a.ply")
    assert list((tmp_path / "out").iterdir()) == []
    export(source, tmp_path / "out/a.parquet")


@pytest.mark.parametrize("suffix", table_copy.SUFFIXES)
def test_a_copy_that_differs_is_not_written(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    name = "read_written" if suffix == ".ply" else "_read_parquet"
    real = getattr(table_copy, name)

    def spoiled(*arguments: object):
        for columns in real(*arguments):
            yield columns | {"red": columns["red"] + np.uint16(1)}

    monkeypatch.setattr(table_copy, name, spoiled)
    with pytest.raises(PointloomError, match="would differ in dimension red"):
        export(scan, tmp_path / "out" / f"a{suffix}")
    assert list((tmp_path / "out").iterdir()) == []


def test_chunks_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointcloud.formats.las.CHUNK_POINTS", 7)
    source = rich(tmp_path / "a.las")
    for suffix in table_copy.SUFFIXES:
        export(source, tmp_path / f"out{suffix}")
    assert (
        pq.read_table(tmp_path / "out.parquet")["gps_time"].to_pylist()
        == laspy.read(source).gps_time.tolist()
    )
    np.testing.assert_array_equal(read_cloud(str(tmp_path / "out.ply")).xyz, read_cloud(str(source)).xyz)
