"""Grids, thinning and codes under everything the page draws."""

from __future__ import annotations

import base64
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointcloud.labels import IGNORE
from tasks.report import charts, colouring, pictures, scene
from tests.support.report_scans import SCHEME, scan


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**31), st.sampled_from([0.0, 1e-5, 1.0, 700.0]), st.booleans())
def test_every_point_lies_in_its_cell_and_the_highest_is_on_top(
    num_points: int, seed: int, width: float, far: bool
) -> None:
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(0, 1, (num_points, 3)) * (width, 50, 9) + (4e6 if far else -3)
    grid = pictures.lay_grid(xyz, 500)
    rows, columns = np.divmod(grid.cells, grid.shape[1])
    assert rows.max() < grid.shape[0]
    slack = 1e-6 * grid.cell + 1e-9
    assert (np.abs(xyz[:, 0] - (grid.west + (columns + 0.5) * grid.cell)) <= grid.cell / 2 + slack).all()
    assert (np.abs(xyz[:, 1] - (grid.south + (rows + 0.5) * grid.cell)) <= grid.cell / 2 + slack).all()
    assert len(grid.top) == len(np.unique(grid.cells))
    for top in grid.top:
        assert xyz[top, 2] == xyz[grid.cells == grid.cells[top], 2].max()
    mantissa = grid.cell / 10 ** math.floor(math.log10(grid.cell) + 1e-9)
    assert round(mantissa, 6) in (1, 2, 5)


def test_cells_are_bounded_and_follow_the_density() -> None:
    rng = np.random.default_rng(0)
    xyz = rng.uniform(0, 100, (200_000, 3))
    assert math.prod(pictures.lay_grid(xyz, 5_000).shape) <= 1.1 * 5_000 + 200
    fine, coarse = pictures.lay_grid(xyz, 10**6), pictures.lay_grid(xyz[:2_000], 10**6)
    assert fine.cell < coarse.cell
    corner = np.concatenate([xyz[:20_000] / 100, [[100.0, 100.0, 0.0]]])
    assert pictures.lay_grid(corner, 10**6).cell < 2  # the empty rest of the box does not count


def test_a_mean_leaves_out_what_is_unknown() -> None:
    xyz = np.array([[0.1, 0.1, 0], [0.2, 0.2, 1], [0.3, 0.3, 2], [5.5, 0.1, 0], [9.5, 9.5, 0]])
    cells = np.array([0, 0, 0, 1, 3])
    grid = pictures.Grid(0.0, 0.0, 5.0, (2, 2), cells, np.array([2, 3, 4]))
    assert len(xyz) == len(cells)
    found = grid.raster_of_means(np.array([1.0, 0.0, np.nan, np.nan, 0.0]))
    assert found.tolist() == [[2 + 50, colouring.UNKNOWN], [colouring.EMPTY, 2]]


def test_codes() -> None:
    assert colouring.class_codes(np.array([IGNORE, 0, 2], np.int8)).tolist() == [1, 2, 4]
    outcome = colouring.outcome_codes(np.array([0, 1, IGNORE, 0]), np.array([0, 0, 0, IGNORE]))
    assert outcome.tolist() == [2, 3, 3, 1]
    shares = colouring.share_codes(np.array([0.0, 0.001, 0.5, 1.0, np.nan]))
    assert shares.tolist() == [2, 3, 52, 102, 1]
    assert colouring.height_codes(np.array([10.0, 15.0, 20.0])).tolist() == [2, 52, 102]
    assert colouring.height_codes(np.array([7.0, 7.0])).tolist() == [2, 2]


@pytest.mark.parametrize(
    "colours",
    [
        colouring.of_classes(SCHEME, "none"),
        colouring.of_outcomes(),
        colouring.of_error_shares(),
        colouring.of_confidence(),
        colouring.of_heights(np.array([1.0, 2.0]), "m"),
    ],
)
def test_every_code_has_one_step_of_colour_and_a_name(colours: colouring.Colouring) -> None:
    count = len(colours.colours)
    assert len(colours.names) == count
    steps = colours.scale()
    for code, colour in enumerate(colours.colours):
        place = (code + 0.5) / count  # where Plotly puts the code between -0.5 and count - 0.5
        assert any(a[0] < place < b[0] and a[1] == b[1] == colour for a, b in pairwise(steps))


@pytest.mark.parametrize("colour", ["red;background:url(x)", "url(http://x)", "#12", "", "#12345g"])
def test_only_plain_colours_reach_a_style(colour: str) -> None:
    assert colouring.safe_colour(colour) == colouring.safe_colour("not a colour")
    assert colouring.safe_colour("#a6794b") == "#a6794b"


def test_thinning_is_the_same_each_time_and_even() -> None:
    drawn = scene.thin(100_000, 10_000)
    assert (drawn == scene.thin(100_000, 10_000)).all()
    assert len(np.unique(drawn)) == 10_000
    assert (np.diff(drawn) > 0).all()
    quarters = np.bincount(drawn // 25_000)
    assert np.abs(quarters - 2_500).max() < 200
    assert scene.thin(7, 10).tolist() == list(range(7))


def test_a_lifted_class_leaves_the_maps_only() -> None:
    whole = scan()
    seen = pictures.lift(whole, SCHEME, ("building",))
    assert seen.truth is not None
    assert whole.truth is not None
    assert 2 not in seen.truth
    assert len(seen) == np.count_nonzero(whole.truth != 2)
    unscored = scan(scored=False)
    assert 2 not in pictures.lift(unscored, SCHEME, ("building",)).after
    all_building = replace(unscored, after=np.full(len(unscored), 2))
    assert pictures.lift(all_building, SCHEME, ("building",)) is all_building


def test_confusion_rows_are_shares_of_the_true_class() -> None:
    counts = np.array([[6, 2, 0, 0], [0, 0, 0, 0], [1, 0, 2, 1]])
    scores = charts.Scores.from_confusion(counts, SCHEME.names)
    assert charts.confusion_columns(scores) == (*SCHEME.names, "other")
    rows = charts.confusion_rows(counts, scores)
    assert [[cell.count for cell in cells] for _, cells in rows] == counts.tolist()
    assert [cell.share for cell in rows[0][1]] == [0.75, 0.25, 0.0, 0.0]
    assert [cell.share for cell in rows[1][1]] == [None] * 4
    assert [cell.is_right for cell in rows[2][1]] == [False, False, True, False]
    none_other = charts.Scores.from_confusion(counts[:, :3], SCHEME.names)
    assert charts.confusion_columns(none_other) == SCHEME.names


def test_curves_leave_out_what_was_not_measured() -> None:
    history: list[dict[str, Any]] = [
        {"epoch": 1, "train_loss": 2.0, "val_miou": None},
        {"epoch": 2, "train_loss": float("nan"), "val_miou": 0.6},
        {"epoch": 3, "train_loss": 1.0, "val_miou": 0.4},
    ]
    loss, miou = charts.training_curves(history)
    assert loss.figure["data"][0]["x"] == [1, 3]
    assert [trace["name"] for trace in loss.figure["data"]] == ["training"]
    assert miou.figure["data"][0]["y"] == [0.6, 0.4]
    assert (miou.figure["data"][1]["x"], miou.figure["data"][1]["y"]) == ([2], [0.6])
    assert charts.training_curves([]) == []


def test_the_confidence_chart_counts_every_point_once() -> None:
    chart = charts.confidence_chart(scan())
    assert chart is not None
    bars = np.frombuffer(base64.b64decode(chart.figure["data"][0]["y"]["bdata"]))
    assert bars.sum() == pytest.approx(1)
    assert charts.confidence_chart(scan(scored=False)) is None
    sure = replace(scan(), confidence=np.ones(400))
    assert charts.confidence_chart(sure) is not None
