"""Text of any encoding in a LAS header and its records: read, and kept byte for byte in the labelled copy."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from pyproj import CRS

from pointcloud.delivery.las_copy import write_labelled
from pointcloud.formats.las_header import PatchedStream
from pointcloud.formats.las_raw import read_records
from pointcloud.formats.reader import read_cloud, read_header
from tests.support.odd_las import Record, write_odd_las

TEXT = "Ä. Müller, Süd".encode("latin-1")
WKT = CRS("EPSG:25832").to_wkt("WKT1_GDAL").replace("UTM zone 32N", "Überhöht").encode("latin-1")
PROJECTED: Record = (b"LASF_Projection", 2112, TEXT, WKT + b"\0")
RECORDS: dict[str, Record] = {
    "user": (TEXT, 7, b"", b"x"),
    "description": (b"Firm", 7, TEXT, TEXT),
    "text area": (b"LASF_Spec", 3, b"", TEXT),
    "classification lookup": (b"LASF_Spec", 0, b"", b"\x02" + TEXT.ljust(15)),
    "classification lookup of another length": (b"LASF_Spec", 0, b"", TEXT),
    "GeoTIFF text": (b"LASF_Projection", 34737, b"", TEXT + b"|\0"),
    "CRS": PROJECTED,
    "two names that differ after their ends": (b"Firm\0" + TEXT[:8], 7, b"a\0" + TEXT, b"x"),
}


@pytest.mark.parametrize("extended", [False, True], ids=["VLR", "EVLR"])
@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("case", RECORDS)
def test_text_is_carried_as_bytes(case: str, suffix: str, extended: bool, tmp_path: Path) -> None:
    records = [(b"Firm", 1, b"", b"1"), RECORDS[case], (b"Firm", 2, b"", b"22")]
    scan = write_odd_las(
        tmp_path / "scan.las", *([[], records] if extended else [records]), system=TEXT, software=TEXT[::-1]
    )
    assert len(read_cloud(str(scan))) == 20
    proof = write_labelled(
        str(scan), str(tmp_path / f"out{suffix}"), np.full(20, 6, np.uint8), np.ones(20)
    ).proof
    assert (proof.vlrs, proof.evlrs) == ((0, 3) if extended else (3, 0))
    with scan.open("rb") as mine, (tmp_path / f"out{suffix}").open("rb") as other:
        assert mine.read(94) == other.read(94)
        before = [(r.head, r.data(mine)) for r in read_records(mine, extended)]
        after = [(r.head, r.data(other)) for r in read_records(other, extended)]
    assert len(before) == 3
    assert after[:3] == before


@pytest.mark.parametrize("extended", [False, True], ids=["VLR", "EVLR"])
def test_a_crs_in_latin_1_is_understood(tmp_path: Path, extended: bool) -> None:
    scan = write_odd_las(tmp_path / "a.las", *([[], [PROJECTED]] if extended else [[PROJECTED]]))
    crs = read_header(str(scan)).crs
    assert crs is not None
    assert "Überhöht" in crs.name


def test_a_patched_stream_shows_the_patches_alone(tmp_path: Path) -> None:
    stream = PatchedStream(io.BytesIO(b"0123456789"), {2: b"ab", 7: b"c"})
    assert stream.read() == b"01ab456c89"
    for start in range(10):
        for size in range(11 - start):
            stream.seek(start)
            assert stream.read(size) == b"01ab456c89"[start : start + size]
            assert stream.tell() == start + size
    buffer = bytearray(4)
    stream.seek(-4, io.SEEK_END)
    assert stream.readinto(buffer) == 4
    assert bytes(buffer) == b"6c89"
