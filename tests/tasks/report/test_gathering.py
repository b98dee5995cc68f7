"""A view gathered from chunks: all of a small scan, of a larger one the same even sample, and counts of every point."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.report.content import ScanView
from tasks.report.gathering import GatheredView
from tasks.report.page import render
from tests.support.report_scans import report, scan


def gathered(whole: ScanView, chunk: int, max_points: int) -> ScanView:
    view = GatheredView(whole.name, max_points)
    columns = (whole.xyz, whole.before, whole.after, whole.truth, whole.confidence)
    for start in range(0, len(whole), chunk):
        view.add(*(None if c is None else c[start : start + chunk] for c in columns))
    return view.view()


@pytest.mark.parametrize("scored", [True, False])
def test_a_scan_of_few_points_is_kept_whole(scored: bool) -> None:
    whole = scan(num_points=1000, scored=scored)
    found = gathered(whole, 64, 1000)
    assert found.whole is None
    np.testing.assert_array_equal(found.xyz, whole.xyz)
    assert found.labellings().keys() == whole.labellings().keys()
    for name, labels in whole.labellings().items():
        np.testing.assert_array_equal(found.labellings()[name], labels)
    assert render(report(found)) == render(report(whole))


def test_a_sample_is_even_in_order_and_the_same_however_the_chunks_are_cut() -> None:
    whole = scan(num_points=50_000)
    whole = replace(whole, xyz=np.arange(150_000.0).reshape(-1, 3))
    found = gathered(whole, 1_000, 5_000)
    assert len(found) == 5_000
    at = (found.xyz[:, 0] / 3).astype(int)
    assert (np.diff(at) > 0).all()
    # Of each tenth of the scan a tenth of the sample: 500, give or take four standard deviations.
    np.testing.assert_allclose(np.bincount(at // 5_000, minlength=10), 500, atol=4 * 21)
    for name, labels in whole.labellings().items():
        np.testing.assert_array_equal(found.labellings()[name], labels[at])
    assert whole.confidence is not None
    np.testing.assert_array_equal(found.confidence, whole.confidence[at])
    for chunk in (333, 50_000):
        np.testing.assert_array_equal(gathered(whole, chunk, 5_000).xyz, found.xyz)


def test_no_more_is_held_than_a_quarter_beyond_the_sample() -> None:
    whole, view = scan(num_points=1_000), GatheredView("a", max_points=2_000)
    for _ in range(100):
        view.add(whole.xyz, whole.before, whole.after, whole.truth, whole.confidence)
        held = {sum(map(len, parts)) for parts in view._kept.values()}
        assert len(held) == 1
        assert held.pop() <= 2_500
    assert view.view().counts().num_points == 100_000


def test_the_page_says_that_pictures_are_of_a_sample_and_figures_of_all_points() -> None:
    whole = scan(num_points=3_000)
    found = gathered(whole, 500, 1_000)
    assert found.counts() == replace(whole.counts(), confidence=pytest.approx(whole.counts().confidence))
    of_all = report(whole)
    page, page_of_all = render(report(found, confusion=of_all.confusion)), render(of_all)
    said = (
        "Scan tile: its pictures are made from 1\u202f000 of its 3\u202f000 points, drawn at random over the whole "
        "scan, the same ones every time; scores count every point."
    )
    assert said in page
    assert said not in page_of_all
    assert "Thinned: 1\u202f000 of 3\u202f000 points are drawn" in page
    glance, glance_of_all = (
        text.split("At a glance")[1].split("<section")[0] for text in (page, page_of_all)
    )
    assert glance.replace(f"<li>{said}</li>", "").split() == glance_of_all.split()
