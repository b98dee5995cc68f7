"""Labelled clouds opened by LASzip's own library, and the table of what became of each file."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import laspy
import numpy as np
import pytest

from benchmarks import lossless
from benchmarks.lossless import difference_by_laszip, rows_of
from pointcloud.delivery.las_copy import output_name, write_labelled
from pointcloud.errors import ScanError
from pointcloud.labelling.options import LabelOptions
from tests.support import broken_files
from tests.support.clouds import real_files, write_las
from tests.support.labelled_copies import CODES, NUM, SHARES, rich, rich_header


def read_by_laszip(path: Path) -> laspy.LasData:
    """Every dimension as laspy names it, of points that LASzip decoded."""
    with laspy.open(path, laz_backend=laspy.LazBackend.Laszip) as reader:
        return reader.read()


def assert_same_elsewhere(scan: Path, copy: Path, codes: np.ndarray) -> None:
    before, after = laspy.read(scan), read_by_laszip(copy)
    np.testing.assert_array_equal(np.asarray(after.classification), codes)
    # Bytes that no record describes have a name of the reader's, and none where another record has described some.
    for name in set(before.point_format.dimension_names) - {"classification", "ExtraBytes"}:
        np.testing.assert_array_equal(np.asarray(before[name]), np.asarray(after[name]), err_msg=name)
    assert difference_by_laszip(scan, copy) is None


@pytest.mark.parametrize("point_format", range(11))
def test_another_reader_reads_every_format(tmp_path: Path, point_format: int) -> None:
    version = ("1.2" if point_format < 4 else "1.3") if point_format < 6 else "1.4"
    scan, out = write_las(tmp_path / "a.las", NUM, point_format, version), tmp_path / "out.laz"
    write_labelled(str(scan), str(out), CODES, SHARES)
    assert_same_elsewhere(scan, out, CODES)


@pytest.mark.parametrize("point_format", [0, 1, 2, 3, 6, 7, 8])
def test_another_reader_reads_what_was_added(tmp_path: Path, point_format: int) -> None:
    scan, out = tmp_path / "a.las", tmp_path / "out.laz"
    write_las(scan, NUM, header=rich_header(point_format), amplitude=np.arange(NUM, dtype=np.float32))
    write_labelled(str(scan), str(out), CODES, SHARES, LabelOptions(keep_original=True))
    assert_same_elsewhere(scan, out, CODES)
    after = read_by_laszip(out)
    np.testing.assert_array_equal(
        after["original_classification"], np.asarray(laspy.read(scan).classification)
    )
    assert np.abs(np.asarray(after["confidence"]) - SHARES).max() <= 0.005 + 1e-9


@pytest.mark.parametrize("path", real_files("*/*.la[sz]", max_bytes=1_300_000))
def test_another_reader_reads_real_files(path: Path, tmp_path: Path) -> None:
    out = tmp_path / output_name(path.name, "laz")
    try:
        num = laspy.open(path, laz_backend=laspy.LazBackend.Lazrs).header.point_count
        codes = np.random.default_rng(0).choice(CODES, num)
        write_labelled(str(path), str(out), codes, np.ones(num))
    except (ScanError, laspy.errors.LaspyException):
        pytest.skip("not readable; test_labelled has it refused")
    assert_same_elsewhere(path, out, codes)


@pytest.mark.parametrize(
    ("point_format", "offset", "bit", "expected"),
    [
        (6, 0, 1, "byte 0"), (6, 15, 1, "byte 15"), (6, 16, 1, None), (6, 29, 1, "byte 29"),
        (1, 15, 1, None), (1, 15, 0x20, "byte 15"), (1, 27, 1, "byte 27"),
    ],
)  # fmt: skip
def test_the_other_reader_sees_a_changed_byte(
    tmp_path: Path, point_format: int, offset: int, bit: int, expected: str | None
) -> None:
    scan = write_las(tmp_path / "a.las", NUM, point_format, "1.4" if point_format == 6 else "1.2")
    out = tmp_path / "out.las"
    write_labelled(str(scan), str(out), CODES, SHARES)
    content = bytearray(out.read_bytes())
    start, (length,) = struct.unpack_from("<I", content, 96)[0], struct.unpack_from("<H", content, 105)
    content[start + 7 * length + offset] ^= bit
    out.write_bytes(content)
    assert difference_by_laszip(scan, out) == (f"{expected} of the point records" if expected else None)


def test_the_other_reader_sees_a_changed_header(tmp_path: Path) -> None:
    scan, out = write_las(tmp_path / "a.las", NUM), tmp_path / "out.las"
    write_labelled(str(scan), str(out), CODES, SHARES)
    content = bytearray(out.read_bytes())
    struct.pack_into("<d", content, 179, 1000.0)
    out.write_bytes(content)
    assert difference_by_laszip(scan, out) == "header field max_x"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "sub").mkdir(parents=True)
    rich(folder / "sub" / "rich.las")
    broken_files.not_a_las(folder)
    return folder


def test_the_table_says_what_became_of_each_file(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lossless", str(tree)])
    assert lossless.main() == 0
    lines = capsys.readouterr().out.splitlines()
    (good,) = [line for line in lines if "sub/rich.las" in line]
    for cell in ("1.4", "7", "60", "2 / 1", "amplitude, deviation, normal", "RGB", "the same", "kept"):
        assert f" {cell} |" in good
    assert any("refused: cannot read scan" in line for line in lines)
    assert json.loads(lines[-1]) == {"files": 2, "kept": 1, "lost": 0, "unreadable": 1}
    assert all(line.count(" | ") == lines[0].count(" | ") for line in lines[2:-2])


def test_what_is_lost_is_said(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lossless, "difference_by_laszip", lambda *_: "byte 3 of the point records")
    assert [row.kept for row in rows_of(tree)] == [None, False]
    content = bytearray((tree / "sub" / "rich.las").read_bytes())
    struct.pack_into("<d", content, 179, 1.0)
    (tree / "sub" / "rich.las").write_bytes(content)
    monkeypatch.setattr("pointcloud.delivery.las_copy.copy_raw_parts", lambda *_: None)
    (_, lost) = rows_of(tree)
    assert lost.kept is False
    assert "would differ" in lost.cells[-1]
