"""The page as a browser gets it: parsed HTML, the data it embeds, what it may fetch (nothing)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from pointcloud.labels import IGNORE, ClassLabel, LabelScheme
from tasks.report import colouring
from tasks.report.content import Report, ScanView
from tasks.report.page import render
from tests.support.report_scans import SCHEME, report, scan


class Parsed(HTMLParser):
    """Elements (tag, attributes), the text of every script, and all other text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._open = ""
        self.feed(page)
        self.text = re.sub(r"[ \n]+", " ", self.text)  # not the narrow spaces

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""
        self.text += " "

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts[-1] += data
        elif self._open != "style":
            self.text += data

    def data(self) -> Any:
        return json.loads(self.scripts[0])

    def with_attribute(self, name: str) -> list[str]:
        return [str(attributes[name]) for _, attributes in self.elements if name in attributes]


@pytest.fixture(scope="module")
def scored() -> ScanView:
    return scan()


@pytest.fixture(scope="module")
def page(scored: ScanView) -> Parsed:
    return Parsed(render(report(scored)))


def decoded(coded: dict[str, str]) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(coded["bdata"]), np.dtype(coded["dtype"]))
    return values.reshape([int(n) for n in coded["shape"].split(",")]) if "shape" in coded else values


def test_nothing_is_fetched(page: Parsed) -> None:
    assert page.with_attribute("src") == []
    assert all(link == "data:," or link.startswith("#") for link in page.with_attribute("href"))
    styles = page.with_attribute("style")
    assert styles
    assert not any("url(" in style for style in styles)
    assert not {tag for tag, _ in page.elements} & {"img", "iframe", "object", "embed", "form", "base"}


def test_the_policy_allows_the_two_scripts_and_no_other(page: Parsed) -> None:
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "unsafe" not in policy.split("script-src")[1].split(";")[0]
    assert len(page.scripts) == 3  # the data, which is not run, plotly.js, and the page's own
    found = re.findall(r"'sha256-([^']+)'", policy)
    run = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in page.scripts[1:]]
    assert found == run


def test_charts_are_not_offered_to_a_server(page: Parsed) -> None:
    assert "showSendToCloud: false" in page.scripts[2]


def test_every_label_points_somewhere(page: Parsed) -> None:
    ids = page.with_attribute("id")
    assert len(ids) == len(set(ids))
    assert set(page.with_attribute("aria-labelledby")) <= set(ids)
    assert {link[1:] for link in page.with_attribute("href") if link.startswith("#")} <= set(ids)
    plots = [a for _, a in page.elements if "data-figure" in a]
    assert plots
    assert all(a["role"] == "img" and a["aria-label"] for a in plots)


def test_hostile_names_stay_text() -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror='alert(2)'>\"&"
    scheme = LabelScheme(
        evil, (ClassLabel(evil, (2,), 2, "red;background:url(http://x)"), *SCHEME.classes[1:])
    )
    hostile = report(
        scan(evil),
        scan("other", seed=1, scored=False),
        title=evil,
        subtitle=evil,
        scheme=scheme,
        facts={evil: evil},
        unit=evil,
    )
    html = render(hostile)
    page = Parsed(html)
    assert len(page.scripts) == 3
    assert "img" not in {tag for tag, _ in page.elements}
    assert not any("http" in style for style in page.with_attribute("style"))
    assert page.text.count(evil) >= 8  # title, subtitle, names, class, facts
    assert "<img" not in html.replace(page.scripts[1], "")
    names = page.data()["scans"][0]["figures"]["panel-0"]["data"][0]["meta"]["names"]
    assert names[2].startswith("&lt;/script&gt;")  # Plotly reads HTML under the pointer


def test_every_figure_has_a_place_and_every_place_a_figure() -> None:
    page = Parsed(render(report(scan(), scan("bare", seed=1, scored=False))))
    data = page.data()
    figures = [key for part in data["scans"] for key in part["figures"]] + list(data["curves"])
    assert sorted(figures) == sorted(page.with_attribute("data-figure"))
    assert len(page.with_attribute("data-mode")) == sum(len(part["modes"]) for part in data["scans"])


def test_the_scene_holds_the_points_given(page: Parsed, scored: ScanView) -> None:
    part = page.data()["scans"][0]
    points = part["figures"]["scene"]["data"][0]
    near = np.stack([decoded(points[axis]) for axis in "xyz"], axis=1)
    assert near.dtype == np.float32
    assert np.abs(near + np.floor(scored.xyz.min(axis=0)) - scored.xyz).max() < 1e-4
    codes = {mode["key"]: np.frombuffer(base64.b64decode(mode["codes"]), np.uint8) for mode in part["modes"]}
    assert scored.truth is not None
    assert scored.confidence is not None
    for key, indices in scored.labellings().items():
        assert (codes[key].astype(int) - colouring.FIRST == indices).all()  # IGNORE is -1, UNKNOWN one below
    assert ((codes["errors"] == colouring.UNKNOWN) == (scored.truth == IGNORE)).all()
    wrong = (scored.truth != IGNORE) & (scored.after != scored.truth)
    assert ((codes["errors"] == colouring.FIRST + 1) == wrong).all()
    assert np.abs((codes["confidence"] - 2.0) / 100 - scored.confidence).max() <= 0.0101
    assert (decoded(points["marker"]["color"]) == codes["after"]).all()


def test_the_maps_hold_the_topmost_points_given(page: Parsed, scored: ScanView) -> None:
    figures = page.data()["scans"][0]["figures"]
    assert scored.truth is not None
    for key, indices in (("panel-0", scored.before), ("panel-1", scored.after), ("panel-2", scored.truth)):
        heatmap = figures[key]["data"][0]
        picture = decoded(heatmap["z"])
        seen = np.zeros_like(picture)
        for i in np.argsort(scored.xyz[:, 2]):  # later, higher points cover lower ones
            column = round((scored.xyz[i, 0] - heatmap["x0"]) / heatmap["dx"])
            row = round((scored.xyz[i, 1] - heatmap["y0"]) / heatmap["dy"])
            seen[row, column] = indices[i] + 2
        assert (picture == seen).all()


def test_tables_and_tiles_say_the_scores(page: Parsed, scored: ScanView) -> None:
    content = report(scored)
    scores = content.scores()
    assert scores is not None
    assert scores.miou is not None
    assert content.confusion is not None
    assert f"{100 * scores.miou:.1f}\u202f%" in page.text
    for name, iou in zip(scores.names, scores.iou, strict=True):
        assert iou is not None
        assert re.search(rf"{name} {100 * iou:.1f}\u202f%", page.text)
    for count in content.confusion[:, :3].ravel():
        assert f"% {count} " in page.text
    assert "40 of 400 points (10.0\u202f%) have no class of the scheme as truth" in page.text
    assert "Best 75.0 % at epoch 2, last 75.0 %." in page.text


def test_without_truth_nothing_pretends_to_be_scored() -> None:
    page = Parsed(render(report(scan(scored=False), history=[], facts={})))
    part = page.data()["scans"][0]
    assert set(part["figures"]) == {"panel-0", "panel-1", "scene"}
    assert [mode["key"] for mode in part["modes"]] == ["after", "before", "height"]
    assert "Nothing was scored" in page.text
    assert "Scan tile has no truth and is not scored." in page.text
    assert "comes without confidence" in page.text
    assert "Scores per class" not in page.text
    assert "mIoU" not in page.text


def test_absent_invented_and_unlabelled_are_said() -> None:
    counts = np.array([[5, 0, 2, 3], [0, 0, 0, 0], [0, 0, 0, 0]])
    page = Parsed(render(report(confusion=counts)))
    assert "Left out of the mIoU, for no scored point has or was given the class: vegetation." in page.text
    assert "counted with an IoU of 0: building." in page.text
    assert "3 scored points were given no class of the scheme; they count as errors" in page.text
    assert "other" in page.text
    assert "mean of 2 classes, 1 absent" in page.text


def test_an_empty_report_and_an_empty_scan_are_pages() -> None:
    nothing = np.zeros(0, np.int8)
    empty = ScanView("hollow", np.zeros((0, 3)), nothing, nothing, nothing, np.zeros(0))
    page = Parsed(render(report(empty, scan())))
    assert "Scan hollow has no points" in page.text
    assert page.data()["scans"][0] is None
    bare = Parsed(render(Report("t", "s", SCHEME)))
    assert bare.data() == {"scans": [], "curves": {}}


def test_points_that_coincide_or_stand_in_a_line_are_drawn() -> None:
    here = scan(num_points=5)
    for xyz in (np.zeros((5, 3)), np.arange(5.0)[:, None] * (1, 0, 0), np.full((5, 3), 4e6)):
        assert Parsed(render(report(replace(here, xyz=xyz)))).data()["scans"][0] is not None


def test_a_large_scan_is_thinned_said_so_and_stays_below_12_mb() -> None:
    big = scan(num_points=90_000)
    html = render(report(big))
    page = Parsed(html)
    assert "Thinned: 60\u202f000 of 90\u202f000 points are drawn" in page.text
    x = decoded(page.data()["scans"][0]["figures"]["scene"]["data"][0]["x"])
    assert len(x) == 60_000
    assert len(html.encode()) < 12e6


def test_the_same_report_gives_the_same_page(scored: ScanView) -> None:
    assert render(report(scored)) == render(report(scored))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xyz": np.zeros((400, 3), np.float32)}, "float64"),
        ({"xyz": np.full((400, 3), np.nan)}, "NaN"),
        ({"after": np.zeros(399, int)}, "after must be"),
        ({"truth": np.zeros(400)}, "truth must be"),
        ({"confidence": np.full(400, 1.5)}, r"\[0, 1\]"),
    ],
)
def test_scans_that_do_not_fit_are_refused(scored: ScanView, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(scored, **change)


def test_reports_that_do_not_fit_are_refused(scored: ScanView) -> None:
    with pytest.raises(ValueError, match=r"after of scan 'tile' must lie in \[-1, 3\)"):
        Report("t", "s", SCHEME, (replace(scored, after=np.full(400, 3)),))
    with pytest.raises(ValueError, match="3 classes need"):
        report(scored, confusion=np.zeros((4, 4), int))
    with pytest.raises(ValueError, match="ceiling"):
        report(scored, lifted=("ceiling",))


def test_the_report_loads_neither_torch_nor_ray_nor_prefect() -> None:
    program = "import sys, tasks.report.page; sys.exit(bool({'torch', 'ray', 'prefect'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
