"""What the figures rest on: nine files hold every point of the one, once, and their edges cut roofs."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import laspy
import numpy as np
import pytest

from benchmarks.segment_seams import Seams, cut_in_nine, draw, png, roof_edges
from pointcloud.labels import PRESETS
from tests.support.clouds import write_las

SCHEME = PRESETS["asprs-basic"]


def test_nine_files_hold_every_point_once(tmp_path: Path) -> None:
    scan = write_las(tmp_path / "whole.laz", 500)
    whole = laspy.read(scan)
    edges = roof_edges(scan)
    paths, places = cut_in_nine(scan, tmp_path / "nine", edges)
    assert len(paths) == 9
    np.testing.assert_array_equal(np.sort(np.concatenate(places)), np.arange(500))
    for n, (path, place) in enumerate(zip(paths, places, strict=True)):
        piece = laspy.read(path)
        np.testing.assert_array_equal(piece.gps_time, whole.gps_time[place])
        assert set(np.searchsorted(edges[0], piece.x, "right")) == {n % 3}
        assert set(np.searchsorted(edges[1], piece.y, "right")) == {n // 3}


def test_edges_run_through_roofs_or_there_are_none(tmp_path: Path) -> None:
    def survey(name: str, *places: float) -> Path:
        """Ground over 50 m, and a roof of 4 m about each place, in both axes."""
        axis = np.linspace(0, 50, 101)
        x, y = (grid.ravel() for grid in np.meshgrid(axis, axis))
        roof = np.zeros(len(x), bool)
        for place in places:
            roof |= (np.abs(x - place) < 2) | (np.abs(y - place) < 2)
        return write_las(
            tmp_path / name, len(x), X=(x * 1000).astype(int), Y=(y * 1000).astype(int),
            classification=np.where(roof, 6, 2),
        )  # fmt: skip

    for edges, low in zip(roof_edges(survey("a.las", 20, 33)), (652000.0, 6862000.0), strict=True):
        np.testing.assert_allclose(edges - low, [20, 33], atol=2)
    with pytest.raises(ValueError, match="no roof"):
        roof_edges(write_las(tmp_path / "b.las", 500, classification=2))


def test_the_picture_shows_what_differs_and_the_edges() -> None:
    axis = np.linspace(0, 10, 200)
    xy = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    whole = np.full(len(xy), 2, np.uint8)
    alone = np.where((np.abs(xy[:, 0] - 3) < 0.5) & (xy[:, 1] > 8), 6, whole).astype(np.uint8)
    edges = (np.array([3.0, 7.0]), np.array([3.0, 7.0]))
    seams = Seams(np.column_stack([xy, xy[:, 0]]), whole, whole, alone, edges)
    picture = draw(seams, SCHEME)
    red = (picture == (214, 39, 40)).all(axis=2)
    width = (picture.shape[1] - 24) // 3
    assert not red[:, : 2 * width + 24].any()
    rows, columns = np.nonzero(red)
    assert rows.max() < 0.25 * picture.shape[0], "north is up"
    assert abs(columns.mean() - (2 * width + 24 + 0.3 * width)) < 0.02 * width
    share = (alone != whole).mean()
    assert f"{1 - share:.4%} where each file is alone" in seams.report()
    assert "100.0000% of the labels agree (0 differ)" in seams.report()
    content = png(picture)
    assert struct.unpack(">II", content[16:24]) == picture.shape[1::-1]
    at = content.index(b"IDAT")
    (size,) = struct.unpack_from(">I", content, at - 4)
    rows_of_bytes = np.frombuffer(zlib.decompress(content[at + 4 : at + 4 + size]), np.uint8)
    np.testing.assert_array_equal(
        rows_of_bytes.reshape(len(picture), -1)[:, 1:].reshape(picture.shape), picture
    )
