"""Labelled clouds of what is no LAS: every point and property of the scan comes back, in order, as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyproj import CRS

from pointcloud.cloud import Cloud
from pointcloud.delivery.extra_dimensions import ENTROPY
from pointcloud.delivery.proof import Proof
from pointcloud.delivery.scan_columns import read_stored
from pointcloud.delivery.table_copy import write_exported
from pointcloud.errors import ScanError
from pointcloud.formats import ply
from pointcloud.formats.reader import read_cloud, read_header
from pointcloud.labelling.options import LabelOptions
from tests.pointcloud.formats.test_s3dis import room
from tests.support.clouds import read_labelled
from tests.support.scan_files import ply_bytes, write_e57

NUM = 60
CODES = np.random.default_rng(1).choice(np.array([2, 5, 6, 200], np.uint8), NUM)
SHARES = np.random.default_rng(2).random(NUM).astype(np.float32)
ENCODINGS = ("binary_little_endian", "binary_big_endian", "ascii")
KINDS = [
    ("x", "f4"), ("y", "f8"), ("z", "f4"), ("nx", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1"),
    ("scalar_Curvature", "f8"), ("flags", "i2"), ("label", "i4"), ("id", "u4"),
]  # fmt: skip


def vertices(kinds: list[tuple[str, str]], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.zeros(NUM, kinds)
    for name in rows.dtype.names or ():
        rows[name] = rng.random(NUM) * 100
    return rows


def label(scan: Path, out: Path, codes: np.ndarray = CODES, **options: object) -> Proof:
    """The proof of a labelled cloud; its counts are those of the classes in it."""
    counts, proof = write_exported(str(scan), str(out), codes, SHARES, LabelOptions(**options), {})
    np.testing.assert_array_equal(
        counts, np.bincount(read_cloud_classes(out, len(codes)), minlength=256), err_msg=str(out)
    )
    return proof


def read_cloud_classes(path: Path, num_points: int) -> np.ndarray:
    cloud, _ = read_labelled(str(path))
    assert len(cloud) == num_points
    return cloud.attributes["classification"]


def properties(path: Path) -> dict[str, np.ndarray]:
    rows = np.concatenate(list(ply.iterate_rows(str(path))))
    return {name: rows[name] for name in rows.dtype.names or ()}


def assert_same_cloud(one: Cloud, other: Cloud) -> None:
    """The same points and attributes, classes aside."""
    np.testing.assert_array_equal(one.xyz, other.xyz)
    names = set(other.attributes) - {"classification"}
    assert set(one.attributes) - {"classification"} == names
    for name in names:
        np.testing.assert_array_equal(one.attributes[name], other.attributes[name], err_msg=name)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_property_of_a_ply_comes_back_whatever_it_means(tmp_path: Path, encoding: str) -> None:
    rows, scan, out = vertices(KINDS), tmp_path / "a.ply", tmp_path / "out" / "a.ply"
    scan.write_bytes(ply_bytes(rows, encoding, faces=2))
    proof = label(scan, out)
    found = properties(out)
    assert list(found) == [name for name, _ in KINDS] + ["classification", "confidence"]
    for name, kind in KINDS:
        np.testing.assert_array_equal(found[name], rows[name], err_msg=name)
        # Text has the digits it has, whatever its header says.
        assert found[name].dtype == ("f8" if encoding == "ascii" and kind[0] == "f" else kind), name
    assert (found["classification"].dtype, found["confidence"].dtype) == (np.uint8, np.float32)
    np.testing.assert_array_equal(found["classification"], CODES)
    np.testing.assert_array_equal(found["confidence"], SHARES)
    assert (proof.points, proof.dimensions) == (NUM, tuple(found))
    assert "left out" in proof.changed["elements face"]
    head = out.read_bytes().split(b"end_header")[0]
    assert b"\ncomment made for a test\n" in head
    # The delivered label is no longer what counts, and is there.
    np.testing.assert_array_equal(read_cloud(str(out)).attributes["classification"], CODES)
    assert_same_cloud(read_cloud(str(out)), read_cloud(str(scan)))
    assert read_header(str(out)).crs is None


def test_a_ply_as_parquet(tmp_path: Path) -> None:
    rows, scan, out = vertices(KINDS), tmp_path / "a.ply", tmp_path / "a.parquet"
    scan.write_bytes(ply_bytes(rows, "binary_big_endian"))
    proof = label(scan, out, keep_original=True)
    table = pq.read_table(out)
    for name, kind in KINDS:
        np.testing.assert_array_equal(table[name].to_numpy(), rows[name], err_msg=name)
        assert table[name].to_numpy().dtype == kind
    np.testing.assert_array_equal(table["original_classification"].to_numpy(), rows["label"])
    assert "no place" in proof.changed["comments"]
    cloud, confidence = read_labelled(str(out))
    np.testing.assert_array_equal(confidence, SHARES)
    assert_same_cloud(cloud, read_cloud(str(scan)))


@pytest.mark.parametrize("spelling", ["classification", "Classification", "scalar_Classification"])
def test_classes_are_overwritten_however_their_name_is_spelled(tmp_path: Path, spelling: str) -> None:
    kinds = [*KINDS[:3], (spelling, "f4"), ("flags", "i2")]
    rows, scan = vertices(kinds), tmp_path / "a.ply"
    rows[spelling] = np.arange(NUM) % 7
    scan.write_bytes(ply_bytes(rows))
    proof = label(scan, tmp_path / "b.ply", keep_original=True, preserve=(3,))
    found = properties(tmp_path / "b.ply")
    expected = np.where(rows[spelling] == 3, 3, CODES)
    np.testing.assert_array_equal(found["classification"], expected)
    np.testing.assert_array_equal(found["original_classification"], rows[spelling])
    assert list(found) == [
        "x", "y", "z", "classification", "flags", "original_classification", "confidence"
    ]  # fmt: skip
    assert (spelling in proof.changed["classification"]) == (spelling != "classification")
    both = vertices([*KINDS[:3], ("scalar_Classification", "f4"), ("classification", "u1")])
    both["scalar_Classification"] = 9
    scan.write_bytes(ply_bytes(both))
    label(scan, tmp_path / "c.ply")
    np.testing.assert_array_equal(read_cloud(str(tmp_path / "c.ply")).attributes["classification"], CODES)
    assert (properties(tmp_path / "c.ply")["scalar_Classification"] == 9).all()


def test_points_without_a_class_may_get_one(tmp_path: Path) -> None:
    rows, scan, out = vertices([*KINDS[:3], ("label", "i4")]), tmp_path / "a.ply", tmp_path / "b.ply"
    rows["label"] = np.resize([-1, 0, 1, 6], NUM)
    scan.write_bytes(ply_bytes(rows))
    label(scan, out, only_unclassified=True)
    found = properties(out)
    np.testing.assert_array_equal(found["classification"], np.where(rows["label"] == 6, 6, CODES))
    np.testing.assert_array_equal(found["label"], rows["label"])
    label(scan, out, preserve=(255,))
    np.testing.assert_array_equal(
        properties(out)["classification"], np.where(rows["label"] == -1, 255, CODES)
    )
    scan.write_bytes(ply_bytes(vertices(KINDS[:3])))
    label(scan, out, only_unclassified=True, keep_original=True, preserve=(0, 1))
    assert list(properties(out)) == ["x", "y", "z", "classification", "confidence"]


def test_what_a_labelling_wrote_is_written_anew_and_a_name_of_the_scan_is_not(tmp_path: Path) -> None:
    rows, scan = vertices([*KINDS[:3], ("confidence", "f8")]), tmp_path / "a.ply"
    scan.write_bytes(ply_bytes(rows))
    codes = CODES[::-1]
    for source, name, given in ((scan, "b.ply", CODES), (tmp_path / "b.ply", "c.ply", codes)):
        entropy = np.arange(NUM, dtype=np.uint8)
        options = LabelOptions(keep_original=True)
        write_exported(str(source), str(tmp_path / name), given, SHARES, options, {ENTROPY: entropy})
    found = properties(tmp_path / "c.ply")
    assert list(found) == [
        "x", "y", "z", "confidence", "classification", "confidence_pointloom", "entropy", "original_classification",
    ]  # fmt: skip
    np.testing.assert_array_equal(found["confidence"], rows["confidence"])
    np.testing.assert_array_equal(found["original_classification"], CODES)
    np.testing.assert_array_equal(found["classification"], codes)
    label(tmp_path / "c.ply", tmp_path / "d.ply", keep_original=True)
    assert list(properties(tmp_path / "d.ply")) == list(found)
    np.testing.assert_array_equal(properties(tmp_path / "d.ply")["original_classification"], CODES)
    assert (tmp_path / "d.ply").read_bytes().count(b"labelled by Pointloom") == 1


def test_the_crs_of_a_ply_and_its_comments_stay(tmp_path: Path) -> None:
    scan, wkt = tmp_path / "a.ply", " ".join(CRS("EPSG:2154").to_wkt().split())
    comments = f"comment made for a test\ncomment crs: {wkt}\ncomment café\nobj_info scanner 7".encode()
    scan.write_bytes(ply_bytes(vertices(KINDS[:3])).replace(b"comment made for a test", comments))
    label(scan, tmp_path / "b.ply")
    assert read_header(str(tmp_path / "b.ply")).crs == CRS("EPSG:2154")
    assert comments in (tmp_path / "b.ply").read_bytes()
    assert (tmp_path / "b.ply").read_bytes().count(b"comment crs") == 1


def arrays(folder: Path) -> Path:
    rng = np.random.default_rng(4)
    np.savez(
        folder / "a.npz",
        xyz=rng.random((NUM, 3)) * 9 + 1e6,
        rgb=rng.integers(0, 256, (NUM, 3)).astype(np.uint8),
        intensity=rng.random(NUM),
        label=rng.integers(0, 5, NUM),
        unknown=rng.random(NUM),
    )
    return folder / "a.npz"


def structured(folder: Path) -> Path:
    kinds = [*KINDS[:3], ("red", "u2"), ("green", "u2"), ("blue", "u2"), ("return_number", "u1")]
    rows = vertices(kinds)
    rows["red"] += 1000
    np.save(folder / "a.npy", rows)
    return folder / "a.npy"


def scanned(folder: Path) -> Path:
    pytest.importorskip("pye57", reason="pye57 is the extra e57")
    rng = np.random.default_rng(5)
    colours = {f"color{c}": rng.integers(0, 256, 90).astype(np.uint8) for c in ("Red", "Green", "Blue")}
    invalid = (np.arange(90) % 3 == 0).astype(np.int8)
    points = rng.random((90, 3)).astype(np.float32).astype(np.float64)
    pose = np.array([1.0, 0, 0, 0]), np.array([5.0, 6.0, 7.0])
    return write_e57(folder / "a.e57", [(points, *pose)], **colours, cartesianInvalidState=invalid)


def annotated(folder: Path) -> Path:
    rng = np.random.default_rng(6)
    lines = [
        " ".join([*(f"{v:.3f}" for v in rng.random(3)), *map(str, rng.integers(0, 256, 3))])
        for _ in range(NUM)
    ]
    return room(folder, wall_1="\n".join(lines[:25]), ceiling_1="\n".join(lines[25:]))


@pytest.mark.parametrize("make", [arrays, structured, scanned, annotated])
@pytest.mark.parametrize("suffix", [".ply", ".parquet"])
def test_what_has_no_writer_comes_back_with_all_that_the_reader_knows(
    tmp_path: Path, make, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, out = make(tmp_path), tmp_path / f"out{suffix}"
    before = read_cloud(str(scan))
    for size in (7, 250_000):
        for module in ("formats.arrays", "formats.e57", "formats.s3dis"):
            monkeypatch.setattr(f"pointcloud.{module}.CHUNK_POINTS", size)
        proof = label(scan, out, keep_original=True)
        after, confidence = read_labelled(str(out))
        assert_same_cloud(after, before)
        np.testing.assert_array_equal(after.attributes["classification"], CODES)
        np.testing.assert_array_equal(confidence, SHARES)
    assert any("has no writer" in why for why in proof.changed.values())
    if suffix == ".ply":
        stored = {name: values.dtype for name, values in next(read_stored(str(out)).chunks())[0].items()}
    else:
        stored = {field.name: np.dtype(field.type.to_pandas_dtype()) for field in pq.read_schema(out)}
    assert [stored[axis] for axis in "xyz"] == ["f8"] * 3
    # As PLY is used to, unless there are more than 8 bits.
    assert stored["red"] == ("u2" if make is structured else "u1")
    assert ("original_classification" in stored) == ("classification" in before.attributes)


def test_a_scan_that_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    scan = tmp_path / "a.ply"
    scan.write_bytes(ply_bytes(vertices(KINDS)))
    for num_points in (NUM - 1, NUM + 1):
        with pytest.raises(ScanError, match=rf"has {NUM} points, expected {num_points}"):
            write_exported(
                str(scan), str(tmp_path / "out" / "b.ply"), np.resize(CODES, num_points),
                np.resize(SHARES, num_points), LabelOptions(), {},
            )  # fmt: skip
    assert list((tmp_path / "out").iterdir()) == []
