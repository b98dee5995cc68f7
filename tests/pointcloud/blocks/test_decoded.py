"""A decoded scan: every point once, but those that the scan marks as noise or as withheld."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pointcloud.blocks.decoded import DecodedScan, decode_scan
from pointcloud.errors import ScanError
from pointcloud.labels import PRESETS
from pointcloud.quality.inspect import inspect_scan
from tests.support.clouds import SMALL, assert_one_sentence, write_las
from tests.support.noise import with_points

CONFIG = replace(SMALL, thin=False)
NOISE = np.array([[652_010.0, 6_862_010.0, 3000.0], [652_020.0, 6_862_030.0, -3000.0]])


def point_indices(decoded: DecodedScan) -> list[int]:
    with pa.memory_map(str(decoded.path)) as file:
        table = pa.ipc.open_file(file).read_all()
    return sorted(set(table["point_index"].to_pylist()))


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_las(tmp_path_factory.mktemp("scan") / "a.laz", 300, withheld=0)


@pytest.mark.parametrize("point_format", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("mark", [{"code": 7}, {"code": 18}, {"withheld": True}])
def test_marked_points_are_left_out(
    tmp_path: Path, suffix: str, point_format: int, mark: dict[str, int]
) -> None:
    version = "1.4" if point_format > 5 else "1.2"
    plain = write_las(tmp_path / f"plain{suffix}", 300, point_format, version, withheld=0)
    noisy = with_points(plain, tmp_path / f"noisy{suffix}", NOISE, first=True, **mark)
    expected = decode_scan("a", str(plain), tmp_path / "plain.arrow", CONFIG)
    decoded = decode_scan("a", str(noisy), tmp_path / "noisy.arrow", CONFIG)
    assert (decoded.num_points, decoded.num_marked) == (302, 2)
    assert point_indices(decoded) == list(range(2, 302)), "places in the file, which begins with the noise"
    assert decoded.attributes == expected.attributes
    for name in ("extent", "cells", "cell_points", "bins", "bin_points", "bin_lowest"):
        np.testing.assert_array_equal(getattr(decoded, name), getattr(expected, name))


def test_or_used_like_any_other(scan: Path, tmp_path: Path) -> None:
    noisy = with_points(scan, tmp_path / "noisy.laz", NOISE, code=7, withheld=True)
    decoded = decode_scan("a", str(noisy), tmp_path / "a.arrow", replace(CONFIG, noise="use"))
    assert decoded.num_marked == 0
    assert point_indices(decoded) == list(range(302))
    assert decoded.extent[:, 2].tolist() == [-3000, 3000]


@pytest.mark.parametrize(
    ("num_wrong", "number", "of", "used"),
    [
        (300, 5, 1, False),
        (200, 0, 3, False),
        (200, 2, 0, False),
        (100, 0, 3, True),
        (100, 4, 3, True),
        (0, 1, 1, True),
    ],
)
def test_return_numbers_that_cannot_be_are_said_and_not_used_where_they_are_most(
    tmp_path: Path, num_wrong: int, number: int, of: int, used: bool
) -> None:
    is_wrong = np.arange(300) < num_wrong
    scan = write_las(
        tmp_path / "a.las", 300, withheld=0,
        return_number=np.where(is_wrong, number, 2), number_of_returns=np.where(is_wrong, of, 3),
    )  # fmt: skip
    decoded = decode_scan("a", str(scan), tmp_path / "a.arrow", CONFIG)
    assert decoded.single_returns != used
    assert ("return_number" in decoded.attributes) == ("number_of_returns" in decoded.attributes) == used
    said = [note for note in decoded.notes if "return numbers" in note]
    assert len(said) == (num_wrong > 0)
    assert all(f"of {num_wrong / 3:.1f}% of its points" in note for note in said)
    inspection = inspect_scan(str(scan))
    assert ("return_number" in inspection.attributes) == used
    assert [note for note in inspection.notes if "return numbers" in note] == said


def test_synthetic_points_stay(tmp_path: Path) -> None:
    scan = write_las(tmp_path / "a.las", 50, withheld=0, synthetic=1)
    assert decode_scan("a", str(scan), tmp_path / "a.arrow", CONFIG).num_marked == 0


def test_a_code_that_a_class_is_learned_from_marks_no_noise(scan: Path, tmp_path: Path) -> None:
    table = PRESETS["s3dis"]
    assert table.noise_codes == (18,)
    assert PRESETS["asprs"].noise_codes == (7, 18)
    noisy = with_points(scan, tmp_path / "noisy.laz", NOISE, code=7)
    decoded = decode_scan("a", str(noisy), tmp_path / "a.arrow", CONFIG, noise_codes=table.noise_codes)
    assert decoded.num_marked == 0


def test_a_scan_of_noise_alone_is_refused(tmp_path: Path) -> None:
    scan = write_las(tmp_path / "a.las", 50, withheld=1)
    with pytest.raises(ScanError, match="marks all of its 50 points as noise") as error:
        decode_scan("a", str(scan), tmp_path / "a.arrow", CONFIG)
    assert_one_sentence(error, str(scan))


@pytest.mark.parametrize("thinned", [True, False])
def test_chunks_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thinned: bool) -> None:
    scan = write_las(tmp_path / "a.las", 2000, withheld=0)
    config = replace(SMALL, thin=thinned)
    whole = decode_scan("a", str(scan), tmp_path / "whole.arrow", config, every_point=True)
    monkeypatch.setattr("pointcloud.formats.las.CHUNK_POINTS", 90)
    decoded = decode_scan("a", str(scan), tmp_path / "chunks.arrow", config, every_point=True)
    assert point_indices(decoded) == list(range(2000)) == point_indices(whole)
    for name in ("extent", "cells", "cell_points", "bins", "bin_points", "bin_lowest"):
        np.testing.assert_array_equal(getattr(decoded, name), getattr(whole, name))


def test_a_window_without_points_is_refused(scan: Path, tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="has no point in the window") as error:
        decode_scan("a", str(scan), tmp_path / "a.arrow", CONFIG, (0.0, 0.0, 1.0, 1.0))
    assert_one_sentence(error, str(scan))
