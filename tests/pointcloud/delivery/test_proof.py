"""What the proof of a labelled cloud catches, and what it allows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import laspy
import numpy as np
import pytest

from pointcloud.delivery.las_copy import CONFIDENCE, write_labelled
from pointcloud.delivery.proof import find_difference
from pointcloud.formats import las as las_format
from tests.support.clouds import write_las
from tests.support.labelled_copies import CODES, SHARES

Tamper = Callable[[laspy.LasData], None]


def swap(las: laspy.LasData) -> None:
    las.points.array[[3, 4]] = las.points.array[[4, 3]]


def put(name: str, value: object) -> Tamper:
    def change(las: laspy.LasData) -> None:
        values = np.array(las[name])
        values[7] = value
        las[name] = values

    return change


def drop_vlr(las: laspy.LasData) -> None:
    las.header.vlrs = laspy.vlrs.vlrlist.VLRList([v for v in las.header.vlrs if v.record_id != 4711])


def change_vlr(las: laspy.LasData) -> None:
    next(v for v in las.header.vlrs if v.record_id == 4711).record_data = b"other"


def swap_vlrs(las: laspy.LasData) -> None:
    las.header.vlrs = laspy.vlrs.vlrlist.VLRList(list(las.header.vlrs)[::-1])


def drop_evlr(las: laspy.LasData) -> None:
    las.header.evlrs = laspy.vlrs.vlrlist.VLRList([])


def set_header(name: str, value: object) -> Tamper:
    return lambda las: setattr(las.header, name, value)


def drop_point(las: laspy.LasData) -> None:
    las.points = las.points[np.arange(len(las.points)) != 5]


def change_scales(las: laspy.LasData) -> None:
    las.header.scales = las.points.scales = np.array([0.01, 0.001, 0.01])


TAMPERINGS: dict[str, tuple[Tamper, str]] = {
    "a point moved": (put("X", 1), "dimension X"),
    "a height moved": (put("Z", 1), "dimension Z"),
    "an intensity": (put("intensity", 0), "dimension intensity"),
    "a return number": (put("return_number", 9), "dimension return_number"),
    "a flag beside the class": (put("withheld", 1), "dimension withheld"),
    "a scan angle": (put("scan_angle", 99), "dimension scan_angle"),
    "user data": (put("user_data", 0), "dimension user_data"),
    "a GPS time": (put("gps_time", 1.5), "dimension gps_time"),
    "a colour": (put("blue", 0), "dimension blue"),
    "an extra dimension": (put("deviation", 7.7), "dimension deviation"),
    "NaN for a number": (put("amplitude", 0.5), "dimension amplitude"),
    "an array": (put("normal", [0, 0, 1]), "dimension normal"),
    "two points swapped": (swap, "dimension X"),
    "a point lost": (drop_point, "header field point_count"),
    "a record lost": (drop_vlr, "a VLR"),
    "a record changed": (change_vlr, "a VLR"),
    "records in another order": (swap_vlrs, "a VLR"),
    "an extended record lost": (drop_evlr, "an EVLR"),
    "the scale": (change_scales, "header field scales"),
    "the software": (set_header("generating_software", "x"), "header field generating_software"),
    "the source": (set_header("file_source_id", 1), "header field file_source_id"),
    "the system": (set_header("system_identifier", "x"), "header field system_identifier"),
}


@pytest.mark.parametrize(("tamper", "expected"), TAMPERINGS.values(), ids=list(TAMPERINGS))
def test_the_proof_catches(scan: Path, copy: Path, tamper: Tamper, expected: str) -> None:
    assert find_difference(str(scan), str(copy)) is None
    las = laspy.read(copy)
    tamper(las)
    las.write(str(copy))
    assert find_difference(str(scan), str(copy)) == expected


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (6, "global_encoding"),
        (10, "uuid"),
        (90, "creation_date"),
        (25, "version"),
        (155, "offsets"),
        (179, "bounds"),
        (226, "bounds"),
        (107, "number_of_points_by_return"),
        (255, "number_of_points_by_return"),
    ],
)
def test_the_proof_catches_a_byte_of_the_header(scan: Path, copy: Path, offset: int, expected: str) -> None:
    content = bytearray(copy.read_bytes())
    content[offset] = 3 if offset == 25 else content[offset] ^ 1
    copy.write_bytes(content)
    assert find_difference(str(scan), str(copy)) == f"header field {expected}"


def test_the_proof_catches_another_format(scan: Path, copy: Path) -> None:
    las = laspy.convert(laspy.read(copy), point_format_id=6)
    las.write(str(copy))
    assert find_difference(str(scan), str(copy)) == "point format"


def test_the_proof_catches_a_changed_description(scan: Path, copy: Path) -> None:
    content = copy.read_bytes()
    assert content.count(b"Echo amplitude") == 1
    copy.write_bytes(content.replace(b"Echo amplitude", b"Echo Amplitude"))
    assert find_difference(str(scan), str(copy)) == "the description of an extra dimension"


def test_the_proof_catches_a_byte_of_a_description_that_laspy_does_not_show(scan: Path, copy: Path) -> None:
    content = bytearray(copy.read_bytes())
    content[content.index(b"amplitude") + 70] ^= 1  # its smallest value
    copy.write_bytes(content)
    assert find_difference(str(scan), str(copy)) == "the description of an extra dimension"


def test_the_proof_allows_what_labelling_changes(scan: Path, copy: Path) -> None:
    las = laspy.read(copy)
    las.classification = CODES[::-1]
    las[CONFIDENCE] = SHARES[::-1]
    las.write(str(copy))
    assert find_difference(str(scan), str(copy)) is None


def test_points_so_long_that_chunks_are_shorter_are_compared_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A point of the copy has a byte more, so that fewer of them would be decoded at once."""
    scan = write_las(tmp_path / "a.las", 100)
    monkeypatch.setattr(las_format, "_CHUNK_BYTES", 1500)
    write_labelled(str(scan), str(tmp_path / "out.las"), np.full(100, 2, np.uint8), np.ones(100))
    assert find_difference(str(scan), str(tmp_path / "out.las")) is None
