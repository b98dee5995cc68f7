"""The pictures of the pages: small, there, and drawn right."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from docs import pictures

PAGES = [pictures.PROJECT / "README.md", *(pictures.PROJECT / "docs").rglob("*.md")]
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")


def test_every_picture_of_a_page_is_there_and_small() -> None:
    found = [page.parent / path for page in PAGES for path in IMAGE.findall(page.read_text())]
    assert len(found) > 8
    for path in found:
        assert path.stat().st_size < pictures.MAX_BYTES, path


def test_readme_is_one_page() -> None:
    assert len((pictures.PROJECT / "README.md").read_text().splitlines()) <= 120


def test_the_nearer_of_two_points_is_seen() -> None:
    """Looking north and down, what lies south and higher on one line of sight hides what is behind it."""
    corners = [[x, y, 0.0] for x in (-10.0, 10.0) for y in (-10.0, 10.0)]
    along = np.array([0.0, -np.cos(np.radians(40)), np.sin(np.radians(40))])
    xyz = np.array([*corners, 3 * along, -3 * along])
    rgb = np.array([*[[9, 9, 9]] * 4, [250, 0, 0], [0, 250, 0]], np.uint8)
    for order in (np.arange(6), np.arange(6)[::-1]):
        picture = pictures.view(xyz[order], rgb[order], width=200, turn_deg=0)
        assert (picture == [250, 0, 0]).all(2).any()
        assert not (picture == [0, 250, 0]).all(2).any()


def test_a_large_picture_is_made_smaller(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    pictures.write_png(tmp_path / "noise.png", image.fromarray(noise), max_bytes=4000)
    assert (tmp_path / "noise.png").stat().st_size <= 4000
    flat = np.full((80, 80, 3), (10, 20, 30), np.uint8)
    pictures.write_png(tmp_path / "flat.png", image.fromarray(flat))
    with image.open(tmp_path / "flat.png") as read:
        assert read.size == (80, 80)
        assert read.getpixel((5, 5)) == (10, 20, 30)
