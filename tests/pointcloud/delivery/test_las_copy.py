"""The labelled cloud is the scan but for class and confidence, and its proof catches every other change."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import laspy
import numpy as np
import pytest
from laspy.vlrs.vlr import VLR
from pyproj import CRS

from pointcloud.delivery import las_copy
from pointcloud.delivery.las_copy import CONFIDENCE, check_codes, output_name, write_labelled
from pointcloud.delivery.proof import find_difference
from pointcloud.errors import PointloomError, ScanError, StorageError
from pointcloud.formats.las_raw import read_records
from pointcloud.labels import PRESETS, ClassLabel, LabelScheme
from pointcloud.storage import files
from tests.support.clouds import assert_one_sentence, real_files, write_las
from tests.support.labelled_copies import CODES, NUM, SHARES, assert_labelled, raw_points

# --- what is kept


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize(
    ("version", "point_format"),
    [
        ("1.1", 0), ("1.1", 1), ("1.2", 2), ("1.2", 3), ("1.3", 4), ("1.3", 5),
        *(("1.4", n) for n in range(11)),
    ],
)  # fmt: skip
def test_every_format_is_kept(tmp_path: Path, suffix: str, version: str, point_format: int) -> None:
    scan, out = write_las(tmp_path / f"a{suffix}", NUM, point_format, version), tmp_path / f"out{suffix}"
    write_labelled(str(scan), str(out), CODES, SHARES)
    assert_labelled(scan, out, CODES, SHARES)
    assert find_difference(str(scan), str(out)) is None


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_all_that_a_producer_added_is_kept(scan: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    write_labelled(str(scan), str(out), CODES, SHARES)
    assert_labelled(scan, out, CODES, SHARES)
    with laspy.open(out) as reader:
        assert reader.header.are_points_compressed == (suffix == ".laz")
        described = {d.name: d.description for d in reader.header.point_format.extra_dimensions}
    assert described == {
        "amplitude": "Echo amplitude", "deviation": "Shape", "normal": "Normal",
        CONFIDENCE: "Pointloom: class probability",
    }  # fmt: skip


def test_an_impossible_creation_date_is_kept(scan: Path, tmp_path: Path) -> None:
    content = bytearray(scan.read_bytes())
    struct.pack_into("<HH", content, 90, 999, 30_000)
    scan.write_bytes(content)
    out = tmp_path / "out.las"
    write_labelled(str(scan), str(out), CODES, SHARES)
    assert struct.unpack_from("<HH", out.read_bytes(), 90) == (999, 30_000)


def test_las_1_0_is_kept(tmp_path: Path) -> None:
    scan, out = write_las(tmp_path / "old.las", NUM, 1, "1.1"), tmp_path / "out.las"
    content = bytearray(scan.read_bytes())
    content[25] = 0
    scan.write_bytes(content)
    write_labelled(str(scan), str(out), CODES, SHARES)
    assert_labelled(scan, out, CODES, SHARES)
    assert out.read_bytes()[25] == 0


def test_what_the_header_says_of_the_points_is_kept_right_or_wrong(scan: Path, tmp_path: Path) -> None:
    content = bytearray(scan.read_bytes())
    struct.pack_into("<d", content, 179, 1000.0)  # max x, which is 652,000 and more
    struct.pack_into("<6I", content, 107, NUM, 1, 2, 3, 4, 5)  # what readers of LAS 1.2 look at
    struct.pack_into("<15Q", content, 255, *range(15))
    scan.write_bytes(content)
    out = tmp_path / "out.laz"
    write_labelled(str(scan), str(out), CODES, SHARES)
    for place in (slice(107, 131), slice(179, 227), slice(247, 375)):
        assert out.read_bytes()[place] == bytes(content[place])
    assert find_difference(str(scan), str(out)) is None


def test_a_record_is_kept_as_it_is_stored(tmp_path: Path) -> None:
    """laspy drops what follows the end of WKT, and the reserved field of every record."""
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.vlrs.append(VLR("LASF_Projection", 2112, "x", CRS("EPSG:2154").to_wkt().encode() + bytes(9)))
    header.vlrs.append(VLR("Producer", 1, "notes", b"abc"))
    header.global_encoding.wkt = True
    scan, out = write_las(tmp_path / "a.las", NUM, header=header), tmp_path / "out.laz"
    content = scan.read_bytes()
    at = content.index(b"Producer") - 2
    scan.write_bytes(content[:at] + b"\xbb\xaa" + content[at + 2 :])
    with scan.open("rb") as stream:
        before = [(r.head, r.data(stream)) for r in read_records(stream)]
    assert before[0][1].endswith(bytes(9))
    write_labelled(str(scan), str(out), CODES, SHARES)
    with out.open("rb") as stream:
        assert [(r.head, r.data(stream)) for r in read_records(stream)][:2] == before


def test_a_description_is_kept_as_it_is_stored(scan: Path, tmp_path: Path) -> None:
    content, out = bytearray(scan.read_bytes()), tmp_path / "out.laz"
    at = content.index(b"amplitude") - 4
    content[at + 64 : at + 104] = bytes(range(40))  # smallest and largest value, and what means none
    scan.write_bytes(content)
    proof = write_labelled(str(scan), str(out), CODES, SHARES).proof
    assert bytes(content[at : at + 192]) in out.read_bytes()
    assert "delivered extra bytes VLR" not in proof.changed


# --- the proof that goes into the ledger


def test_the_proof_says_what_was_compared_and_what_changed(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.laz"
    proof = write_labelled(str(scan), str(out), CODES, SHARES).proof
    las = laspy.read(scan)
    assert proof.points == NUM
    assert set(proof.dimensions) == set(las.point_format.dimension_names) - {"classification"}
    assert (proof.vlrs, proof.evlrs) == (2, 1)  # the CRS, the flight notes; the long record
    assert {"bounds", "number_of_points_by_return", "creation_date"} <= set(proof.header_fields)
    assert proof.content == files.fingerprint(str(out))
    assert proof.waveforms == "none"
    num = int((np.asarray(las.classification) != CODES).sum())
    assert f"for {num} of {NUM} points" in proof.changed["classification"]
    assert f"extra dimensions {CONFIDENCE}" in proof.changed
    assert "compression" in proof.changed
    assert json.loads(json.dumps(proof.to_dict()))["dimensions"] == list(proof.dimensions)


UNREADABLE = (
    "broken_coder.laz", "broken_size.laz", "not_a_las.las", "truncated_half.laz", "truncated_in_header.las",
    "zero_bytes.las",
)  # fmt: skip


def assert_kept(path: Path, folder: Path) -> None:
    out = folder / output_name(path.name)
    if path.name in UNREADABLE:
        head = path.read_bytes()[:227].ljust(227, b"\0")
        num = struct.unpack_from("<I", head, 107)[0] if head[:4] == b"LASF" else 0  # what it promises
        with pytest.raises(ScanError, match="cannot read scan"):
            write_labelled(str(path), str(out), np.full(num, 2, np.uint8), np.zeros(num))
        assert list(folder.iterdir()) == []
        return
    with laspy.open(path) as reader:
        num = reader.header.point_count
    rng = np.random.default_rng(4)
    codes, shares = rng.choice(np.array([2, 5, 6, 9], np.uint8), num), rng.random(num)
    write_labelled(str(path), str(out), codes, shares)
    assert_labelled(path, out, codes, shares)


@pytest.mark.parametrize("path", real_files("*/*.la[sz]", max_bytes=1_300_000))
def test_real_files_are_kept(path: Path, tmp_path: Path) -> None:
    assert_kept(path, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("path", real_files("*/*.la[sz]", min_bytes=1_300_001))
def test_large_real_files_are_kept(path: Path, tmp_path: Path) -> None:
    assert_kept(path, tmp_path)


# --- confidence


def test_a_labelled_cloud_labelled_again_has_one_confidence(copy: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.las"
    write_labelled(str(copy), str(again), CODES[::-1], SHARES[::-1])
    las = laspy.read(again)
    assert [n for n in las.point_format.dimension_names if CONFIDENCE in n] == [CONFIDENCE]
    np.testing.assert_array_equal(np.asarray(las.classification), CODES[::-1])
    assert np.abs(np.asarray(las[CONFIDENCE]) - SHARES[::-1]).max() < 0.006
    assert raw_points(again).dtype == raw_points(copy).dtype


def test_a_confidence_of_the_scan_s_own_is_kept(tmp_path: Path) -> None:
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.add_extra_dim(laspy.ExtraBytesParams(CONFIDENCE, np.float32, "GNSS quality"))
    theirs = np.linspace(-3, 900, NUM).astype(np.float32)
    scan, out = write_las(tmp_path / "a.las", NUM, header=header, confidence=theirs), tmp_path / "out.las"
    for source in (scan, out):  # the second time it is there already
        write_labelled(str(source), str(tmp_path / "next.las"), CODES, SHARES)
        (tmp_path / "next.las").rename(out)
        las = laspy.read(out)
        np.testing.assert_array_equal(np.asarray(las[CONFIDENCE]), theirs)
        assert np.abs(np.asarray(las["confidence_pointloom"]) - SHARES).max() < 0.006
        assert len([n for n in las.point_format.dimension_names if CONFIDENCE in n]) == 2


def test_confidence_0_and_1_are_exact(scan: Path, tmp_path: Path) -> None:
    shares = (np.arange(NUM) % 2).astype(np.float32)
    out = tmp_path / "out.laz"
    write_labelled(str(scan), str(out), CODES, shares)
    np.testing.assert_array_equal(np.asarray(laspy.read(out)[CONFIDENCE]), shares)


# --- what is refused


@pytest.mark.parametrize("point_format", range(11))
def test_codes_beyond_five_bits_need_a_newer_format(tmp_path: Path, point_format: int) -> None:
    scheme = LabelScheme(
        "mine", (ClassLabel("pipe", (64,), 64, "#111111"), ClassLabel("g", (2,), 2, "#222222"))
    )
    header = laspy.LasHeader(version="1.4", point_format=point_format)
    check_codes(header, PRESETS["asprs"])
    if point_format >= 6:
        check_codes(header, scheme)
        return
    with pytest.raises(ScanError, match="class code 64 does not fit") as error:
        check_codes(header, scheme)
    assert_one_sentence(error, f"point format {point_format}")


def test_labels_for_another_number_of_points_are_refused(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "a.las"
    with pytest.raises(ScanError, match="60 points, expected 59") as error:
        write_labelled(str(scan), str(out), CODES[:-1], SHARES[:-1])
    assert_one_sentence(error, str(scan))
    assert list(out.parent.iterdir()) == []


def test_a_copy_that_differs_is_not_written(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = las_copy.copy_raw_parts

    def with_a_defect(scan_uri: str, part: Path) -> None:
        real(scan_uri, part)
        las = laspy.read(part)
        las.header.vlrs = laspy.vlrs.vlrlist.VLRList([v for v in las.header.vlrs if v.record_id != 4711])
        las.write(str(part))

    monkeypatch.setattr(las_copy, "copy_raw_parts", with_a_defect)
    out = tmp_path / "out" / "a.las"
    with pytest.raises(PointloomError, match="would differ in a VLR; nothing was written") as error:
        write_labelled(str(scan), str(out), CODES, SHARES)
    assert_one_sentence(error, str(scan))
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("step", ["_copy", "copy_raw_parts", "prove"])
def test_an_interrupted_write_leaves_what_was_there(
    scan: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = copy.read_bytes()
    real: Callable[..., object] = getattr(las_copy, step)

    def interrupted(*arguments: object, **named: object) -> None:
        real(*arguments, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(las_copy, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_labelled(str(scan), str(copy), CODES[::-1], SHARES)
    assert copy.read_bytes() == before
    assert [p.name for p in copy.parent.iterdir()] == [copy.name]


def test_an_unwritable_place_and_a_missing_scan_are_said(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot write"):
        write_labelled(str(scan), str(tmp_path / "file" / "a.las"), CODES, SHARES)
    with pytest.raises(StorageError, match=r"gone\.las"):
        write_labelled(str(tmp_path / "gone.las"), str(tmp_path / "out" / "a.las"), CODES, SHARES)
    assert not files.exists(str(tmp_path / "out" / "a.las"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.copc.laz", "a.laz"), ("sub/A.COPC.LAZ", "sub/A.laz"), ("a.laz", "a.laz"), ("a.las", "a.las")],
)
def test_a_copc_file_comes_back_as_plain_laz(name: str, expected: str) -> None:
    assert output_name(name) == expected


@pytest.mark.parametrize(
    ("name", "expected", "as_parquet"),
    [
        ("a.ply", "a.ply", "a.parquet"),
        ("sub/A.PLY", "sub/A.PLY", "sub/A.parquet"),
        ("a.b.npz", "a.b.ply", "a.b.parquet"),
        ("a.npy", "a.ply", "a.parquet"),
        ("a.E57", "a.ply", "a.parquet"),
        ("Area_1/office_1", "Area_1/office_1.ply", "Area_1/office_1.parquet"),
        ("v1.2/room.old", "v1.2/room.old.ply", "v1.2/room.old.parquet"),
        ("a.copc.laz", "a.laz", "a.parquet"),
    ],
)
def test_what_has_no_writer_comes_back_as_ply(name: str, expected: str, as_parquet: str) -> None:
    assert output_name(name) == expected
    assert output_name(name, "parquet") == as_parquet
