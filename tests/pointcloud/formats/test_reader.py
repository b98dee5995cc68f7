"""One way to read: what is true of every format, and what a caller of chunks has to settle himself."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

import laspy
import numpy as np
import pytest
from pyproj import CRS

from pointcloud.cloud import Cloud
from pointcloud.crs import METRE, local_crs
from pointcloud.errors import ScanError, StorageError
from pointcloud.formats import arrays
from pointcloud.formats import las as scan
from pointcloud.formats.reader import (
    SUFFIXES,
    colour_scale,
    find_scans,
    iterate_clouds,
    read_cloud,
    read_header,
)
from tests.support.clouds import assert_one_sentence, make_cloud, write_las
from tests.support.scan_files import ply_bytes, write_copc, write_e57


def write_room(folder: Path, cloud: Cloud) -> Path:
    annotations = folder / "room_1" / "Annotations"
    annotations.mkdir(parents=True)
    lines = [f"{x!r} {y!r} {z!r} 1 2 3" for x, y, z in cloud.xyz.tolist()]
    (annotations / "wall_1.txt").write_text("\n".join(lines))
    return annotations.parent


def write_all(folder: Path) -> list[Path]:
    """The same 60 points with positive coordinates in every format, some of them rounded."""
    cloud = make_cloud(60)
    x, y, z = cloud.xyz.T
    rows = np.rec.fromarrays([x, y, z], names="x,y,z")
    (folder / "a.ply").write_bytes(ply_bytes(np.asarray(rows)))
    (folder / "b.PLY").write_bytes(ply_bytes(np.asarray(rows), "ascii"))
    np.save(folder / "a.npy", cloud.xyz)
    np.savez(folder / "a.npz", xyz=cloud.xyz)
    paths = [folder / name for name in ("a.ply", "b.PLY", "a.npy", "a.npz")]
    header = laspy.LasHeader(version="1.2", point_format=1)
    header.scales = np.full(3, 1e-4)
    for name in ("a.las", "a.laz"):
        las = laspy.LasData(header)
        las.x, las.y, las.z = cloud.xyz.T
        las.write(str(folder / name))
        paths.append(folder / name)
    paths.append(write_copc(folder / "a.copc.laz", cloud))
    paths.append(write_room(folder, cloud))
    with suppress(ImportError):  # the extra may not be installed; its own tests say so
        paths.append(write_e57(folder / "a.e57", [(cloud.xyz, np.array([1.0, 0, 0, 0]), np.zeros(3))]))
    return paths


def test_every_format_tells_the_same(tmp_path: Path) -> None:
    expected = make_cloud(60).xyz
    for path in write_all(tmp_path):
        header = read_header(str(path))
        cloud = read_cloud(str(path))
        found = np.sort(cloud.xyz, axis=0)  # COPC has an order of its own
        np.testing.assert_allclose(found, np.sort(expected, axis=0), atol=0.006, err_msg=str(path))
        assert header.num_points in (60, None)
        assert cloud.xyz.dtype == np.float64
        assert set(cloud.attributes) <= set(header.attributes)
        assert header.bounds is None or header.bounds.shape == (2, 3)
        whole = list(iterate_clouds(str(path), (-1.0, -1.0, 99.0, 99.0)))
        assert sum(map(len, whole)) == 60
        assert list(iterate_clouds(str(path), (100.0, 100.0, 101.0, 101.0))) == []
        window = (5.0, 0.0, 12.0, 9.0)
        inside = (cloud.xyz[:, :2] >= window[:2]).all(axis=1) & (cloud.xyz[:, :2] < window[2:]).all(axis=1)
        part = np.concatenate([c.xyz for c in iterate_clouds(str(path), window)])
        assert sorted(part.tolist()) == sorted(cloud.xyz[inside].tolist())


def test_every_chunk_has_the_same_attributes_and_raw_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "CHUNK_POINTS", 10)
    # Only the last point says that these colours have 16 bits: no chunk before it could.
    red = np.array([7] * 29 + [256])
    path = str(write_las(tmp_path / "a.laz", 30, 7, red=red, green=0, blue=0))
    chunks = list(iterate_clouds(path))
    assert [len(chunk) for chunk in chunks] == [10, 10, 10]
    assert {tuple(chunk.attributes) for chunk in chunks} == {read_header(path).attributes}
    assert [int(chunk.attributes["red"].max()) for chunk in chunks] == [7, 7, 256]
    np.testing.assert_array_equal(read_cloud(path).attributes["red"], red)


@pytest.mark.parametrize(("largest", "scale"), [(0, None), (1, 257), (255, 257), (256, 1), (65535, 1)])
def test_the_scale_of_colours(largest: int, scale: int | None) -> None:
    assert colour_scale(largest) == scale


def test_nan_coordinates_are_counted_over_the_whole_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "CHUNK_POINTS", 10)
    xyz = make_cloud(35).xyz
    xyz[[12, 30], [0, 2]] = np.nan, np.inf
    np.save(tmp_path / "a.npy", xyz)
    with pytest.raises(ScanError, match="2 of 35 points have NaN or infinite coordinates") as error:
        list(iterate_clouds(str(tmp_path / "a.npy")))
    assert_one_sentence(error, "a.npy")


def test_degrees_are_refused(tmp_path: Path) -> None:
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.add_crs(CRS("EPSG:4326"))
    path = str(write_las(tmp_path / "a.las", header=header))
    assert read_header(path).crs == CRS("EPSG:4326")
    with pytest.raises(ScanError, match=r"counts in degrees.*reproject the scan first") as error:
        list(iterate_clouds(path))
    assert_one_sentence(error, path)


def test_what_is_no_scan(tmp_path: Path) -> None:
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    with pytest.raises(ScanError, match="is no scan, expected a file ending in") as error:
        read_header(str(tmp_path / "notes.pdf"))
    assert_one_sentence(error, "notes.pdf")
    for suffix in SUFFIXES:
        with pytest.raises(StorageError, match="gone"):
            read_header(str(tmp_path / f"gone{suffix}"))


def test_notes_go_to_the_caller_or_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = str(write_las(tmp_path / "a.las"))
    notes: list[str] = []
    with caplog.at_level(logging.WARNING):
        read_cloud(path, notes.append)
        assert notes == ["no CRS in the file; metres are assumed."]
        assert not caplog.records
        read_cloud(path)
        assert f"{path}: no CRS in the file" in caplog.text


def test_scans_of_every_format_are_found(tmp_path: Path) -> None:
    paths = write_all(tmp_path)
    files = {path.name for path in paths if path.is_file()}
    assert {source.name for source in find_scans([str(tmp_path)])} == files | {"room_1"}
    assert [s.name for s in find_scans([str(tmp_path / "room_1"), str(tmp_path / "a.ply")])] == [
        "room_1",
        "a.ply",
    ]


@pytest.mark.parametrize("name", ["a.las", "a.laz", "a.npy"])
def test_degrees_are_refused_also_where_no_crs_says_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    degrees = make_cloud(200).xyz * [5e-5, 3e-5, 4] + [-93.1, 44.8, 200]
    if path.suffix == ".npy":
        np.save(path, degrees)
    else:
        header = laspy.LasHeader(version="1.4", point_format=6)
        header.scales, header.offsets = np.array([1e-8, 1e-8, 0.01]), degrees.min(axis=0)
        las = laspy.LasData(header)
        las.xyz = degrees
        las.write(str(path))
    with pytest.raises(ScanError, match="as coordinates in degrees do") as error:
        read_cloud(str(path))
    assert_one_sentence(error, str(path))
    with pytest.raises(ScanError, match="as coordinates in degrees do"):
        list(iterate_clouds(str(path), crs=CRS("EPSG:26915")))
    local = local_crs("site", METRE)
    assert sum(len(cloud) for cloud in iterate_clouds(str(path), crs=local)) == 200, "the user says metres"


@pytest.mark.parametrize("size", [(0.04, 0.04, 0.5), (0.4, 0.4, 30.0), (60.0, 0.001, 8.0), (0.0, 0.0, 9.0)])
def test_small_scans_are_no_degrees(tmp_path: Path, size: tuple[float, float, float]) -> None:
    path = tmp_path / "a.npy"
    np.save(path, make_cloud(200).xyz / [20, 20, 6] * size)
    assert len(read_cloud(str(path))) == 200
