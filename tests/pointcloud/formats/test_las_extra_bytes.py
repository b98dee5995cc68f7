"""Extra bytes however they are described: read by names of their own, and kept in the labelled copy byte for byte."""

from __future__ import annotations

import struct
from pathlib import Path

import laspy
import numpy as np
import pytest

from pointcloud.delivery.las_copy import check_copy, write_labelled
from pointcloud.delivery.proof import Proof
from pointcloud.delivery.read_back import iterate_confidence
from pointcloud.errors import ScanError
from pointcloud.formats.las import open_scan
from pointcloud.formats.las_extra_bytes import read_extra_bytes
from pointcloud.formats.reader import read_cloud
from pointcloud.labelling.options import LabelOptions
from pointcloud.labels import PRESETS
from tests.support.clouds import assert_one_sentence
from tests.support.odd_las import Record, descriptor, extra_bytes_record, points_of, write_odd_las

NUM, STANDARD = 20, 30
CODES, SURE = np.full(NUM, 6, np.uint8), np.arange(NUM) / NUM
LATIN, SAME = descriptor("Höhe".encode("latin-1")), descriptor(b"amplitude", 3)
CASES: dict[str, tuple[list[Record], int, list[str]]] = {
    "latin-1 name": ([extra_bytes_record(LATIN)], 4, ["Höhe"]),
    "utf-8 name": ([extra_bytes_record(descriptor("Höhe".encode()))], 4, ["Höhe"]),
    "a name of 32 latin-1 letters": ([extra_bytes_record(descriptor(b"\xf6" * 32))], 4, ["ö" * 16]),
    "empty name": ([extra_bytes_record(descriptor(b""))], 4, ["ExtraBytes"]),
    "two empty names": ([extra_bytes_record(*[descriptor(b"")] * 2)], 8, ["ExtraBytes", "ExtraBytes_2"]),
    "the same name twice": ([extra_bytes_record(SAME, SAME)], 4, ["amplitude", "amplitude_2"]),
    "standard names": (
        [extra_bytes_record(descriptor(b"intensity"), descriptor(b"x"), descriptor(b"classification", 1))],
        9,
        ["intensity_2", "x_2", "classification_2"],
    ),
    "a name that laspy takes for another": (
        [extra_bytes_record(descriptor(b"return_num", 1))],
        1,
        ["return_num_2"],
    ),
    "three records": (
        [extra_bytes_record(SAME), (b"Firm", 7, b"", b"x"), extra_bytes_record(LATIN), extra_bytes_record(SAME)],
        8,
        ["amplitude", "Höhe", "amplitude_2"],
    ),
    "no record": ([], 5, ["ExtraBytes"]),
    "more undescribed bytes than a descriptor counts": ([], 300, ["ExtraBytes", "ExtraBytes_2"]),
    "some bytes undescribed": ([extra_bytes_record(SAME)], 7, ["amplitude", "ExtraBytes"]),
    "untyped bytes": ([extra_bytes_record(descriptor(b"blob", 0, 8))], 8, ["blob"]),
    "an array of a deprecated type": ([extra_bytes_record(descriptor(b"normal", 29))], 12, ["normal"]),
    "no data, scale and offset": (
        [
            extra_bytes_record(
                descriptor(
                    b"depth", 4, 0b11001, no_data=struct.pack("<q", -1), scale=struct.pack("<d", 0.01),
                    offset=struct.pack("<d", 5.0), description="Tiefe in Metern, Süd".encode("latin-1"),
                )
            )
        ],
        2,
        ["depth"],
    ),
    "a scale of 0": ([extra_bytes_record(descriptor(b"depth", 4, 0b1000))], 2, ["depth"]),
    "scale and offset that are no numbers": (
        [
            extra_bytes_record(
                descriptor(
                    b"depth", 3, 0b11000, scale=struct.pack("<d", np.nan), offset=struct.pack("<d", np.inf)
                )
            )
        ],
        2,
        ["depth"],
    ),
    "confidence of the scan's own": ([extra_bytes_record(descriptor(b"confidence", 1))], 1, ["confidence"]),
}  # fmt: skip


def label(scan: Path, out: Path) -> Proof:
    return write_labelled(str(scan), str(out), CODES, SURE).proof


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("case", CASES)
def test_every_byte_is_kept(case: str, suffix: str, tmp_path: Path) -> None:
    vlrs, num_extra, names = CASES[case]
    scan = write_odd_las(tmp_path / "scan.las", vlrs, num_extra=num_extra)
    with open_scan(str(scan)) as reader:
        assert list(reader.header.point_format.extra_dimension_names) == names
        for chunk in reader.chunk_iterator(NUM):
            stored = [
                np.ascontiguousarray(chunk.array[name]).view(np.uint8).reshape(NUM, -1) for name in names
            ]
    np.testing.assert_array_equal(np.concatenate(stored, axis=1), points_of(scan)[:, STANDARD:])
    first = label(scan, tmp_path / f"first{suffix}")
    label(tmp_path / f"first{suffix}", tmp_path / "out.las")  # labelled again: uncompressed, to look at
    before, after = points_of(scan), points_of(tmp_path / "out.las")
    assert after.shape == (NUM, before.shape[1] + 1)
    np.testing.assert_array_equal(np.delete(after[:, :-1], 16, axis=1), np.delete(before, 16, axis=1))
    np.testing.assert_array_equal(after[:, 16], CODES)
    with scan.open("rb") as mine, (tmp_path / "out.las").open("rb") as other:
        had, copied = read_extra_bytes(mine), read_extra_bytes(other)
    assert copied.descriptors[: len(had.descriptors)] == had.descriptors
    assert (copied.num_records, copied.num_undescribed) == (1, 0)
    assert ("3 extra bytes records" in first.changed) == (case == "three records")
    sure = np.concatenate(list(iterate_confidence(str(tmp_path / "out.las"))))
    np.testing.assert_allclose(sure, SURE, atol=0.005)


def test_an_evlr_may_describe_them(tmp_path: Path) -> None:
    scan = write_odd_las(tmp_path / "a.las", [], [(b"Firm", 9, b"x", b"y" * 9), extra_bytes_record(SAME)], 2)
    with open_scan(str(scan)) as reader:
        assert list(reader.header.point_format.extra_dimension_names) == ["amplitude"]
    proof = label(scan, tmp_path / "out.las")
    assert proof.evlrs == 1
    np.testing.assert_array_equal(
        points_of(tmp_path / "out.las")[:, STANDARD:-1], points_of(scan)[:, STANDARD:]
    )
    assert [d.name for d in laspy.open(tmp_path / "out.las").header.point_format.extra_dimensions] == [
        "amplitude", "confidence",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("descriptors", "num_extra"),
    [([SAME, SAME], 2), ([descriptor(b"strange", 77)], 3), ([SAME], 0)],
    ids=["more than a point has", "a type that LAS does not define", "of no bytes"],
)
def test_a_wrong_description_is_left_out_and_that_is_said(
    descriptors: list[bytes], num_extra: int, tmp_path: Path
) -> None:
    scan = write_odd_las(tmp_path / "a.las", [extra_bytes_record(*descriptors)], num_extra=num_extra)
    proof = label(scan, tmp_path / "out.las")
    assert proof.changed["delivered extra bytes VLR"].startswith("left out")
    np.testing.assert_array_equal(
        points_of(tmp_path / "out.las")[:, STANDARD : STANDARD + num_extra], points_of(scan)[:, STANDARD:]
    )


def test_extra_bytes_named_as_attributes_are_none(tmp_path: Path) -> None:
    """Point format 6 has no colours, and a float named red is none."""
    record = extra_bytes_record(*(descriptor(name, 9) for name in (b"red", b"green", b"blue")))
    cloud = read_cloud(str(write_odd_las(tmp_path / "a.las", [record], num_extra=12)))
    assert "red" not in cloud.attributes


def test_a_copy_without_room_for_confidence_is_said_to_be_so(tmp_path: Path) -> None:
    many = extra_bytes_record(*(descriptor(f"f{n}".encode(), 1) for n in range(341)))
    scan = write_odd_las(tmp_path / "a.las", [many], num_extra=341)
    for refused in (
        lambda: label(scan, tmp_path / "out.las"),
        lambda: check(scan, LabelOptions()),
    ):
        with pytest.raises(ScanError, match=r"342 extra dimensions .* --format parquet") as error:
            refused()
        assert_one_sentence(error, str(scan))
        assert "deliver" not in str(error.value)
    check(scan, LabelOptions(format="parquet"))
    long = write_odd_las(tmp_path / "b.las", [], num_extra=65_505, num_points=2)
    with pytest.raises(ScanError, match=r"65536 bytes .* --format parquet"):
        check(long, LabelOptions())


def check(scan: Path, options: LabelOptions) -> None:
    with open_scan(str(scan)) as reader:
        check_copy(str(scan), reader.header, PRESETS["asprs"], options)
