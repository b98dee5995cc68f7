"""The map of a run: which shapes it draws of scans, tiles and states, and where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointcloud.storage.ledger import DONE, QUARANTINED
from tasks.prefect_ui import survey_map
from tasks.prefect_ui.survey_map import COLOURS, TileRuns, as_data_uri, draw_map


def shapes(svg: str) -> Iterator[tuple[str, str, tuple[float, ...]]]:
    """Name, colour and x, y, width, height of each place that is drawn."""
    for rect in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect"):
        name = rect.find("{http://www.w3.org/2000/svg}title")
        if name is not None:
            at = tuple(float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
            yield name.text or "", rect.attrib["fill"], at


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=1, max_size=60))
def test_runs_hold_each_tile_once(tiles: list[tuple[int, int]]) -> None:
    runs = TileRuns.of(np.array(tiles), 0.5)
    boxes = list(runs.boxes())
    assert len(runs) == len(boxes) == len(set(tiles))
    assert {(round(x / 0.5), round(y / 0.5)) for x, y, *_ in boxes} == set(tiles)
    assert sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in runs.boxes(joined=True)) == 0.25 * len(boxes)
    assert TileRuns.from_dict(runs.to_dict()) == runs


def test_scans_whose_tiles_are_known_are_drawn_tile_by_tile() -> None:
    """An L of three tiles: its corner of the square stays empty, north is up."""
    runs = TileRuns.of(np.array([[0, 0], [1, 0], [0, 1]]), 10.0)
    boxes = {"a.laz": (0.0, 0.0, 20.0, 20.0), "b.laz": (20.0, 0.0, 40.0, 20.0)}
    svg = draw_map(boxes, {"a.laz": "done", "b.laz": "waiting"}, {"a.laz": runs})
    found = list(shapes(svg))
    assert [(name, colour) for name, colour, _ in found] == [("a.laz", COLOURS["done"])] * 3 + [
        ("b.laz", COLOURS["waiting"])
    ]
    top = min(at[1] for *_, at in found)
    places = {((at[0] / 200), (at[1] - top) / 200) for name, _, at in found if name == "a.laz"}
    assert places == {(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)}
    assert re.search(r"done 1\b.*", svg)


def test_thousands_of_tiles_are_joined_and_more_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey_map, "_MOST_SHAPES", 30)
    square = TileRuns.of(np.argwhere(np.ones((6, 6))), 1.0)
    chess = TileRuns.of(np.argwhere(np.indices((10, 10)).sum(axis=0) % 2), 1.0)
    box = {"a.laz": (0.0, 0.0, 10.0, 10.0)}
    assert len(list(shapes(draw_map(box, {}, {"a.laz": square})))) == 6
    assert len(list(shapes(draw_map(box, {}, {"a.laz": chess})))) == 1


def test_ten_thousand_scans_are_a_picture_that_prefect_takes_and_a_bad_one_is_seen() -> None:
    boxes = {
        f"tile_{x:03}_{y:03}.laz": (20.0 * x, 20.0 * y, 20.0 * x + 20, 20.0 * y + 20)
        for x in range(100)
        for y in range(100)
    }
    states = dict.fromkeys(boxes, DONE) | {"tile_050_050.laz": QUARANTINED}
    svg = draw_map(boxes, states)
    assert len(as_data_uri(svg)) < 1_500_000
    assert "done 9,999" in svg
    assert svg.count(f'fill="{COLOURS[QUARANTINED]}"') == 2, "one in the legend, one on the map"
    assert "scans, tile_" in svg
