"""Point formats 0 to 5 become 6 to 10 where a class needs a whole byte, and nothing else is another."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np
import pytest

from pointcloud.delivery.las_copy import check_codes, write_labelled
from pointcloud.delivery.proof import find_difference
from pointcloud.errors import ScanError
from pointcloud.formats.las import open_scan
from pointcloud.formats.las_point_formats import SUCCESSOR, angle_of_rank, has_short_codes
from pointcloud.labelling.options import LabelOptions
from pointcloud.labels import ClassLabel, LabelScheme
from tests.support.clouds import real_files, write_las
from tests.support.labelled_copies import NUM, SHARES, rich_header, waveforms

OPTIONS = LabelOptions(upgrade=True)
BROKEN = {
    "broken_coder", "broken_size", "not_a_las", "truncated_half", "truncated_in_header", "zero_bytes"
}  # fmt: skip
BIG = np.random.default_rng(1).choice(np.array([2, 64, 200], np.uint8), NUM)


def legacy(path: Path, point_format: int) -> Path:
    rng = np.random.default_rng(3)
    dimensions = {
        "amplitude": rng.random(NUM).astype(np.float32),
        "deviation": rng.integers(-9, 9, NUM) / 10 + 5,
        "normal": rng.random((NUM, 3)),
        "scan_angle_rank": rng.integers(-128, 128, NUM).astype(np.int8),
        "synthetic": rng.integers(0, 2, NUM),
        "withheld": rng.integers(0, 2, NUM),
        "scan_direction_flag": rng.integers(0, 2, NUM),
        "edge_of_flight_line": rng.integers(0, 2, NUM),
        "user_data": rng.integers(0, 256, NUM),
    }
    if point_format in (4, 5):
        dimensions |= {
            "wavepacket_index": rng.integers(0, 256, NUM),
            "wavepacket_offset": rng.integers(0, 2**63, NUM),
            "wavepacket_size": rng.integers(0, 2**32, NUM),
            **{name: rng.random(NUM) for name in ("return_point_wave_location", "x_t", "y_t", "z_t")},
        }
    return write_las(path, NUM, header=rich_header(point_format), **dimensions)


@pytest.mark.parametrize("kind", ["las", "laz", "laz of LASzip"])
@pytest.mark.parametrize("point_format", SUCCESSOR)
def test_every_field_comes_along(tmp_path: Path, point_format: int, kind: str) -> None:
    suffix = f".{kind[:3]}"
    scan, out = legacy(tmp_path / f"a{suffix}", point_format), tmp_path / "out" / f"a{suffix}"
    if "LASzip" in kind:  # it calls waveform packets another version than lazrs does
        laspy.read(scan).write(str(scan), laz_backend=laspy.LazBackend.Laszip)
    write_labelled(str(scan), str(out), BIG, SHARES, OPTIONS)
    before, after = laspy.read(scan), laspy.read(out)
    if suffix == ".laz":
        by_laszip = laspy.read(out, laz_backend=laspy.LazBackend.Laszip)
        assert by_laszip.points.array.tobytes() == after.points.array.tobytes()
    assert after.header.point_format.id == SUCCESSOR[point_format]
    assert str(after.header.version) == "1.4"
    assert after.header.global_encoding.wkt
    np.testing.assert_array_equal(np.asarray(after.classification), BIG)
    for name in before.point_format.dimension_names:
        if name == "scan_angle_rank":
            np.testing.assert_array_equal(
                np.rint(np.asarray(after.scan_angle) * 0.006), before.scan_angle_rank
            )
        elif name != "classification":
            np.testing.assert_array_equal(np.asarray(before[name]), np.asarray(after[name]), err_msg=name)
    assert before.header.parse_crs() == after.header.parse_crs()
    ids = [vlr.record_id for vlr in after.header.vlrs]
    assert 4711 in ids
    assert [vlr.record_id for vlr in after.header.evlrs] == [4712]
    assert scan.read_bytes()[26:94] == out.read_bytes()[26:94], "system, software and date"
    assert find_difference(str(scan), str(out), OPTIONS) is None
    assert find_difference(str(scan), str(out)) == "point format", "nobody asked for it"


def test_a_format_that_does_not_need_it_stays(tmp_path: Path) -> None:
    scan, out = legacy(tmp_path / "a.las", 3), tmp_path / "out.las"
    write_labelled(str(scan), str(out), np.full(NUM, 6, np.uint8), SHARES, OPTIONS)
    assert laspy.read(out).header.point_format.id == 3


def test_a_changed_field_is_found_across_formats(tmp_path: Path) -> None:
    scan, out = legacy(tmp_path / "a.las", 3), tmp_path / "out.las"
    write_labelled(str(scan), str(out), BIG, SHARES, OPTIONS)
    for name, expected in (("scan_angle", "scan_angle_rank"), ("red", "red"), ("synthetic", "synthetic")):
        las = laspy.read(out)
        las[name] = (np.asarray(las[name]) == 0) * 1000 if name != "synthetic" else np.asarray(las[name]) ^ 1
        las.write(str(tmp_path / "changed.las"))
        found = find_difference(str(scan), str(tmp_path / "changed.las"), OPTIONS)
        assert found == f"dimension {expected}"


def test_whole_degrees_come_back_from_the_finer_angle() -> None:
    ranks = np.arange(-128, 128).astype(np.int8)
    np.testing.assert_array_equal(np.rint(angle_of_rank(ranks) * 0.006).astype(np.int8), ranks)


@pytest.mark.parametrize("point_format", range(11))
def test_what_has_five_bits_for_the_class_is_known_by_its_dimensions(point_format: int) -> None:
    assert has_short_codes(list(laspy.PointFormat(point_format).dimension_names)) == (point_format < 6)


def test_without_asking_large_codes_are_refused() -> None:
    scheme = LabelScheme("mine", (ClassLabel("a", (2,), 64, "#111111"), ClassLabel("b", (6,), 6, "#222222")))
    header = laspy.LasHeader(version="1.2", point_format=3)
    with pytest.raises(ScanError, match="upgrade the format"):
        check_codes(header, scheme)
    check_codes(header, scheme, OPTIONS)
    check_codes(header, scheme, LabelOptions(format="parquet"))


def label_large(scan: Path, out: Path) -> laspy.LasHeader:
    """Write a copy whose points all have a class that needs a byte; the scan's header."""
    with open_scan(str(scan)) as reader:
        header = reader.header
    codes = np.full(header.point_count, 64, np.uint8)
    write_labelled(str(scan), str(out), codes, np.ones(len(codes)), OPTIONS)
    return header


@pytest.mark.parametrize("scan", real_files("*/*.la[sz]", max_bytes=1_000_000))
def test_real_files_lose_nothing(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / scan.name
    if scan.stem in BROKEN:
        with pytest.raises(ScanError, match="expected a complete LAS or LAZ file"):
            label_large(scan, out)
        return
    header = label_large(scan, out)
    before = header.point_format.id
    needed = SUCCESSOR.get(before, before) if header.point_count else before
    assert laspy.read(out).header.point_format.id == needed
    if header.version.minor == 3 and waveforms(scan):
        (evlr,) = laspy.read(out).header.evlrs
        kept = waveforms(scan)
        assert evlr.record_data_bytes() == kept[60 : 60 + len(evlr.record_data_bytes())]
        assert waveforms(out)[:60] == kept[:60]
