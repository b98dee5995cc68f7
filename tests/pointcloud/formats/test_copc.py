"""A window of a COPC file is exactly the points in it, and costs what its nodes cost."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointcloud.cloud import Cloud
from pointcloud.errors import ScanError
from pointcloud.formats import copc
from pointcloud.formats.reader import iterate_clouds, read_cloud, read_header
from tests.support.clouds import assert_one_sentence, make_cloud, real_files
from tests.support.scan_files import write_copc


def rows(clouds: list[Cloud]) -> np.ndarray:
    """Points of clouds in the order of their coordinates, class and intensity last."""
    found = [
        np.column_stack([c.xyz, c.attributes["classification"], c.attributes["intensity"]]) for c in clouds
    ]
    table = np.concatenate(found) if found else np.empty((0, 5))
    return table[np.lexsort(table.T)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copc")
    return write_copc(folder / "a.copc.laz", make_cloud(2000, extent=(64.0, 64.0, 64.0)))


def test_the_whole_is_every_point(path: Path) -> None:
    cloud = read_cloud(str(path))
    expected = make_cloud(2000, extent=(64.0, 64.0, 64.0))
    assert read_header(str(path)).format == "COPC 1.4, point format 6"
    assert sorted(cloud.attributes["intensity"].tolist()) == sorted(expected.attributes["intensity"].tolist())
    np.testing.assert_allclose(np.sort(cloud.xyz, axis=0), np.sort(expected.xyz, axis=0), atol=0.0051)


corner = st.floats(-10, 75, allow_nan=False)


@given(x=corner, y=corner, width=st.floats(0, 80), height=st.floats(0, 80))
def test_a_window_is_the_points_in_it(path: Path, x: float, y: float, width: float, height: float) -> None:
    cloud = read_cloud(str(path))
    window = (x, y, x + width, y + height)
    xy = cloud.xyz[:, :2]
    inside = ((xy >= window[:2]) & (xy < window[2:])).all(axis=1)
    np.testing.assert_array_equal(rows(list(iterate_clouds(str(path), window))), rows([cloud[inside]]))


def test_a_window_decodes_the_nodes_it_meets_only(path: Path) -> None:
    whole = read_header(str(path))
    decoded = sum(len(xyz) for xyz, _ in copc.iterate_columns(whole, 1, 1, 15, 15))
    # The root and one column of four of the 64 lowest nodes: 10 % + 90 % / 16 of the points.
    assert decoded < 0.2 * 2000
    assert sum(len(xyz) for xyz, _ in copc.iterate_columns(whole, 0, 0, 64, 64)) == 2000


def test_chunks_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = rows(list(iterate_clouds(str(path), (0, 0, 64, 64))))
    monkeypatch.setattr(copc, "CHUNK_POINTS", 50)
    found = list(iterate_clouds(str(path), (0, 0, 64, 64)))
    assert max(map(len, found)) <= 50
    np.testing.assert_array_equal(rows(found), expected)


def test_text_of_any_encoding_is_no_hindrance(path: Path, tmp_path: Path) -> None:
    latin = write_copc(
        tmp_path / "b.copc.laz",
        make_cloud(2000, extent=(64.0, 64.0, 64.0)),
        user="Büro Süd".encode("latin-1"),
    )
    window = (8.0, 8.0, 40.0, 30.0)
    np.testing.assert_array_equal(
        rows(list(iterate_clouds(str(latin), window))), rows(list(iterate_clouds(str(path), window)))
    )


@pytest.mark.parametrize("extra_page", [False, True])
def test_a_table_that_lies_is_refused(tmp_path: Path, extra_page: bool) -> None:
    good = write_copc(tmp_path / "a.laz", make_cloud(300, extent=(64.0, 64.0, 64.0)), extra_page=extra_page)
    content = good.read_bytes()
    size, window = len(content), (0.0, 0.0, 64.0, 64.0)
    # The entries of the table are the last of the file, 32 bytes each: key, offset, size, count.
    lies = {
        "outside of the file": (size - 16, "<Q", size + 1),
        "promises": (size - 4, "<i", 100_000),
        "circle": None,
    }
    for expected, lie in lies.items():
        changed = bytearray(content)
        if lie is None:
            root_at, root_size = struct.unpack_from("<QQ", content, 375 + 54 + 40)
            struct.pack_into("<4iQii", changed, root_at, 0, 0, 0, 0, root_at, root_size, -1)
        else:
            struct.pack_into(lie[1], changed, lie[0], lie[2])
        bad = tmp_path / "bad.laz"
        bad.write_bytes(changed)
        with pytest.raises(ScanError, match=expected) as error:
            list(iterate_clouds(str(bad), window))
        assert_one_sentence(error, "bad.laz")


@pytest.mark.parametrize("path", real_files("laspy_sdist/simple.copc.laz"))
def test_a_window_of_a_real_file(path: Path) -> None:
    cloud = read_cloud(str(path))
    low = cloud.xyz.mean(axis=0)[:2]
    window = (*low.tolist(), *(low + 700).tolist())
    inside = ((cloud.xyz[:, :2] >= low) & (cloud.xyz[:, :2] < low + 700)).all(axis=1)
    found = list(iterate_clouds(str(path), window))
    assert inside.any()
    np.testing.assert_array_equal(rows(found), rows([cloud[inside]]))
    assert sum(len(xyz) for xyz, _ in copc.iterate_columns(read_header(str(path)), *window)) < len(cloud) / 3
