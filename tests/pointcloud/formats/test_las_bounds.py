"""Header bounds that cannot be true are not trusted; those of the points stand in their place."""

from __future__ import annotations

import struct
from pathlib import Path

import laspy
import numpy as np
import pytest

from pointcloud.blocks.neighbours import find_neighbours
from pointcloud.formats.las import measure_bounds
from pointcloud.formats.las_bounds import distance_beyond, is_box
from pointcloud.formats.reader import iterate_clouds, read_header
from pointcloud.grid.block_config import BlockConfig
from tests.support.clouds import write_las

_BOUNDS = 179  # byte offset of max x, min x, max y, … (LAS 1.4 R16, table 3)
WRONG = {
    "zero": [0.0] * 6,
    "NaN": [np.nan] * 6,
    "infinite": [np.inf, -np.inf] * 3,
    "never grown": [-1.7e308, 1.7e308] * 3,
    "beyond all coordinates": [1.7e308, -1.7e308] * 3,
    "much too wide": [1_652_000.0, -348_000.0, 7_862_000.0, 5_862_000.0, 100.0, -100.0],
    "of another tile": [651_900.0, 651_000.0, 6_861_000.0, 6_860_000.0, 50.0, 0.0],
}


def with_bounds(path: Path, values: list[float]) -> Path:
    content = bytearray(path.read_bytes())
    struct.pack_into("<6d", content, _BOUNDS, *values)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("point_format", [1, 6])
@pytest.mark.parametrize("case", WRONG)
def test_bounds_are_those_of_the_points(case: str, point_format: int, suffix: str, tmp_path: Path) -> None:
    path = write_las(tmp_path / f"a{suffix}", 200, point_format)
    right = read_header(str(path))
    assert right.bounds is not None
    assert not any("bounds" in note for note in right.notes)
    header = read_header(str(with_bounds(path, WRONG[case])))
    np.testing.assert_allclose(header.bounds, right.bounds)
    notes: list[str] = []
    list(iterate_clouds(str(path), report=notes.append))
    for said in (header.notes, notes):
        assert sum("bounds in its header are not those of its points" in note for note in said) == 1


def test_a_scan_whose_bounds_are_0_has_neighbours(tmp_path: Path) -> None:
    paths = [write_las(tmp_path / f"{name}.las") for name in "ab"]
    with_bounds(paths[1], WRONG["zero"])
    headers = {path.name: read_header(str(path)) for path in paths}
    assert find_neighbours(headers, BlockConfig()) == {"a.las": ["b.las"], "b.las": ["a.las"]}


def test_wide_bounds_of_a_stray_point_are_those_of_the_points(tmp_path: Path) -> None:
    x = np.full(50, 10_000)
    x[7] = 2_000_000_000
    path = write_las(tmp_path / "a.las", X=x, Y=x)
    header = read_header(str(path))
    np.testing.assert_allclose(header.bounds[:, 0], [652_010, 2_652_000])
    assert header.notes == ()


def test_rounded_bounds_are_trusted(tmp_path: Path) -> None:
    path = write_las(tmp_path / "a.las", 200)
    with laspy.open(path) as reader:
        rounded = np.round(np.ravel(np.column_stack([reader.header.maxs, reader.header.mins])))
    header = read_header(str(with_bounds(path, rounded.tolist())))
    np.testing.assert_array_equal(np.ravel(header.bounds[::-1].T), rounded)


def test_points_beyond_the_bounds_that_a_sample_missed_are_said(tmp_path: Path) -> None:
    x = np.full(1000, 10_000)
    x[777] = 40_000
    path = write_las(tmp_path / "a.las", 1000, X=x)
    bounds = measure_bounds(str(path))
    bounds[1, 0] = 652_010.0
    with_bounds(path, np.ravel(bounds[::-1].T).tolist())
    notes: list[str] = []
    list(iterate_clouds(str(path), report=notes.append))
    assert any("reach 30 CRS units beyond the bounds in its header" in note for note in notes)


def test_a_damaged_file_is_examined_all_the_same(tmp_path: Path) -> None:
    path = with_bounds(write_las(tmp_path / "a.laz", 200), WRONG["zero"])
    content = path.read_bytes()
    (points_at,) = struct.unpack_from("<I", content, 96)
    damaged = bytearray(content)
    damaged[points_at + 60 : -40] = b"\xff" * (len(content) - 100 - points_at)
    path.write_bytes(damaged)
    assert read_header(str(path)).num_points == 200


def test_boxes() -> None:
    box = np.array([[0.0, 0, 0], [100, 1, 0]])
    assert is_box(box)
    assert not is_box(box[::-1])
    assert distance_beyond(box, np.array([[100.9, 1.9, -0.9], [np.nan, 0, 0]])) == 0
    assert distance_beyond(box, np.array([[50.0, 0, 7]])) == 7
    assert distance_beyond(box, np.empty((0, 3))) == 0
