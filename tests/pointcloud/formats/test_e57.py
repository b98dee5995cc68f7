"""E57: several scans in one system, invalid points left out, and one sentence for what is bad."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pointcloud.errors import ScanError
from pointcloud.formats import e57
from pointcloud.formats.reader import iterate_clouds, read_cloud, read_header
from tests.support.clouds import assert_one_sentence
from tests.support.scan_files import write_e57

pytest.importorskip("pye57", reason="pye57 is the extra e57")

QUARTER = np.array([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])  # a quarter turn around z
STILL, NOWHERE = np.array([1.0, 0, 0, 0]), np.zeros(3)


def points(num_points: int = 60, seed: int = 0) -> np.ndarray:
    # E57 as pye57 writes it keeps 32-bit coordinates.
    return np.random.default_rng(seed).random((num_points, 3)).astype(np.float32).astype(np.float64) * 8


def test_poses_are_applied(tmp_path: Path) -> None:
    scans = [(points(), STILL, NOWHERE), (points(seed=1), QUARTER, np.array([100.0, 200, 5]))]
    path = str(write_e57(tmp_path / "a.e57", scans))
    header, cloud = read_header(path), read_cloud(path)
    assert header.num_points == len(cloud) == 120
    assert "it holds 2 scans, joined by their poses." in header.notes
    np.testing.assert_array_equal(cloud.xyz[:60], points())
    x, y, z = points(seed=1).T
    np.testing.assert_allclose(cloud.xyz[60:], np.stack([100 - y, 200 + x, 5 + z], axis=1), atol=1e-9)


def test_colours_intensity_and_invalid_points(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    colours = {f"color{c}": rng.integers(0, 256, 60).astype(np.uint8) for c in ("Red", "Green", "Blue")}
    intensity = rng.random(60).astype(np.float32)
    invalid = (np.arange(60) % 3 == 0).astype(np.int8)
    path = str(
        write_e57(
            tmp_path / "a.e57",
            [(points(), STILL, NOWHERE)],
            **colours,
            intensity=intensity,
            cartesianInvalidState=invalid,
        )
    )
    notes: list[str] = []
    cloud = read_cloud(path, notes.append)
    valid = invalid == 0
    np.testing.assert_array_equal(cloud.xyz, points()[valid])
    np.testing.assert_array_equal(cloud.attributes["red"], colours["colorRed"][valid].astype(int) * 257)
    np.testing.assert_allclose(cloud.attributes["intensity"], intensity[valid] * 65535.0, atol=0.6)
    assert "20 points that the scanner marked as invalid are left out." in notes


def test_returns_count_from_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # pye57 writes no returns: other whole numbers stand for them.
    monkeypatch.setitem(e57._ATTRIBUTES, "return_number", "rowIndex")
    monkeypatch.setitem(e57._ATTRIBUTES, "number_of_returns", "columnIndex")
    index = (np.arange(60) % 3).astype(np.uint16)
    scans = [(points(), STILL, NOWHERE)]
    path = write_e57(tmp_path / "a.e57", scans, rowIndex=index, columnIndex=np.full(60, 3, np.uint16))
    found = read_cloud(str(path)).attributes
    np.testing.assert_array_equal(found["return_number"], index + 1)
    assert set(found["number_of_returns"]) == {3}


def test_spherical_coordinates_are_those_of_pye57() -> None:
    from pye57.utils import convert_spherical_to_cartesian

    rng = np.random.default_rng(3)
    rae = np.stack([rng.random(20) * 9, rng.uniform(-np.pi, np.pi, 20), rng.uniform(-1.5, 1.5, 20)])
    np.testing.assert_allclose(e57._to_cartesian(*rae).T, convert_spherical_to_cartesian(rae.T), atol=1e-12)


def test_chunks_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(
        write_e57(
            tmp_path / "a.e57", [(points(), STILL, NOWHERE)] * 2, intensity=np.arange(60, dtype=np.float32)
        )
    )
    whole = read_cloud(path)
    monkeypatch.setattr(e57, "CHUNK_POINTS", 25)
    assert [len(cloud) for cloud in iterate_clouds(path)] == [25, 25, 10] * 2
    np.testing.assert_array_equal(read_cloud(path).xyz, whole.xyz)


def test_a_file_in_a_bucket_is_copied_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(write_e57(tmp_path / "a.e57", [(points(), STILL, NOWHERE)]))
    monkeypatch.setattr(e57.files, "is_local", lambda uri: False)
    np.testing.assert_array_equal(read_cloud(path).xyz, points())


def test_bad_files_are_one_sentence_and_stay_where_they_are(tmp_path: Path) -> None:
    good = write_e57(tmp_path / "a.e57", [(points(), STILL, NOWHERE)]).read_bytes()
    changed = bytearray(good)
    changed[1500] ^= 255  # a page's checksum no longer fits
    for number, content in enumerate(
        (b"", b"no E57" * 99, good[:40], good[: len(good) // 2], good[:-1], bytes(changed))
    ):
        path = tmp_path / f"bad{number}.e57"
        path.write_bytes(content)
        with pytest.raises(ScanError, match="complete E57") as error:
            read_cloud(str(path))
        assert_one_sentence(error, str(path))
        assert path.read_bytes() == content


def test_without_pye57_the_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_e57(tmp_path / "a.e57", [(points(), STILL, NOWHERE)]))
    monkeypatch.setitem(sys.modules, "pye57", None)
    with pytest.raises(ScanError, match=r"pip install 'pointloom\[e57\]'") as error:
        read_header(path)
    assert_one_sentence(error, path)
