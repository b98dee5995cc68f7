"""The morning page: what needs a look comes first, names are text, nothing is fetched and no script runs."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from pointcloud.quality.doubtful_tiles import WorstTile
from pointcloud.quality.drift import Range, Seen
from pointcloud.storage.ledger import DONE, QUARANTINED, Record
from tasks.report.colouring import Colouring
from tasks.report.review import Doubtful, Review, class_shares, compare, doubt_colours, draw_raster, render
from tasks.report.salvage import Salvage
from tasks.report.words import Tile
from tests.support.report_scans import SCHEME
from tests.tasks.report.test_page import Parsed

LOG = logging.getLogger(__name__)


def done(scan: str, counts: tuple[int, ...], **details: object) -> Record:
    by_class = dict(zip(SCHEME.names, counts, strict=True))
    details = {"class_counts": by_class, "mean_confidence": 0.8, **details}
    return Record(
        stage="segment",
        scan=scan,
        key="k",
        state=DONE,
        points_in=sum(counts),
        points_out=sum(counts),
        seconds=2.0,
        details=details,
    )


def bad(scan: str, why: str) -> Record:
    return Record(stage="segment", scan=scan, key="k", state=QUARANTINED, error=why)


def place(scan: str = "a.laz") -> WorstTile:
    rng = np.random.default_rng(0)
    xyz = rng.uniform((652_000, 6_862_000, 40), (652_016, 6_862_016, 50), (300, 3))
    return WorstTile(
        scan, (3, 4), 0.41, xyz, rng.integers(0, 3, 300).astype(np.int16), rng.random(300, np.float32)
    )


REVIEW = Review(
    title="Labelled into out",
    subtitle="Run of a night",
    scheme=SCHEME,
    records=(
        done("a.laz", (90, 5, 5)), done("b.laz", (90, 5, 5)), done("odd.laz", (5, 90, 5)), bad("c.laz", "It is torn."),
    ),
    states={"a.laz": DONE, "b.laz": DONE, "odd.laz": DONE, "c.laz": QUARANTINED},
    boxes={"a.laz": (0.0, 0.0, 10.0, 10.0), "c.laz": (10.0, 0.0, 20.0, 10.0)},
    tiles=(Doubtful((0.0, 0.0, 5.0, 5.0), 0.4, "a.laz"), Doubtful((5.0, 0.0, 10.0, 5.0), 0.99, "a.laz")),
    places=(place(),),
    crs={"a.laz": "Lambert-93"},
    figures=(Tile("Labelled", "3", "scans"),),
    facts={"checkpoint": "somewhere"},
)  # fmt: skip


def test_the_page_says_what_needs_a_look_where_and_why() -> None:
    text = Parsed(render(REVIEW, Salvage(LOG))).text
    for said in (
        "It is torn.",
        "c.laz",
        "mean confidence",
        "tile 3, 4",
        "Lambert-93",
        "x 652,008.0",
        "odd.laz",
        "somewhere",
    ):
        assert said in text
    assert text.index("It is torn.") < text.rindex("Class shares")
    assert "Unlike" not in text


def test_drift_is_shown_with_its_sentences() -> None:
    drifted = replace(
        REVIEW, records=(done("a.laz", (1, 1, 1), drift=["It is too thin.", "It is too bright."]),)
    )
    text = Parsed(render(drifted, Salvage(LOG))).text
    assert "It is too thin." in text
    assert "It is too bright." in text


def test_what_the_checkpoint_saw_stands_beside_what_the_scan_is() -> None:
    saw = Seen(
        Range(5.0, 9.9, 43.0),
        {"height": Range(0.1, 2.6, 17.7), "red": Range(1, 2, 3)},
        Range(9.3, 23.2, 103.5),
    )
    here = Seen(Range(0.5, 1.9, 7.8), {"height": Range(0.1, 10.5, 42.1)}, Range(0.2, 2.0, 8.1))
    off = done("a.laz", (1, 1, 1), drift=["It is too thin."], seen=here.to_dict())
    refused = replace(
        bad("c.laz", "It is far too thin."), details={"drift": ["So it is."], "seen": here.to_dict()}
    )
    like = done("b.laz", (1, 1, 1), drift=[], seen=saw.to_dict())
    review = replace(REVIEW, records=(off, refused, like), seen=saw)
    assert [what for what, *_ in compare(off, saw)] == [
        "points per m² as delivered", "points per m² after thinning", "height above the lowest point nearby, m"
    ]  # fmt: skip
    text = Parsed(render(review, Salvage(LOG))).text
    for said in (
        "What the checkpoint saw",
        "9.3 · 23.2 · 103.5",
        "0.2 · 2 · 8.1",
        "0.1 · 10.5 · 42.1",
        "So it is.",
    ):
        assert said in text
    assert text.count("9.3 · 23.2 · 103.5") == 2, "for scans that are unlike it"
    assert compare(done("a.laz", (1, 1, 1), drift=["Old."]), saw) == compare(off, None) == []


def test_class_shares_put_the_strangest_scan_first() -> None:
    whole, rows = class_shares(REVIEW.records, SCHEME.names)
    assert whole is not None
    assert whole.num_points == 300
    assert whole.shares == pytest.approx((185 / 300, 100 / 300, 15 / 300))
    assert [row.name for row in rows] == ["odd.laz", "a.laz", "b.laz"]
    assert rows[0].strange == (True, True, False)
    assert rows[0].distance == pytest.approx(170 / 300)
    assert class_shares([bad("c.laz", "no.")], SCHEME.names) == (None, [])


def test_a_run_without_any_label_is_a_page_too() -> None:
    nothing = Review("t", "s", SCHEME, (bad("c.laz", "It is torn."),), {"c.laz": QUARANTINED}, {})
    text = Parsed(render(nothing, Salvage(LOG))).text
    assert "It is torn." in text
    assert "Maps" not in text


def test_names_are_text_and_the_page_fetches_nothing() -> None:
    evil = '<script>alert("x")</script>'
    page = render(
        replace(
            REVIEW,
            title=evil,
            records=(*REVIEW.records, bad(evil, evil)),
            states=REVIEW.states | {evil: QUARANTINED},
        ),
        Salvage(LOG),
    )
    parsed = Parsed(page)
    assert parsed.scripts == []
    assert evil in parsed.text
    assert parsed.with_attribute("src") == []
    assert all(link.startswith(("#", "data:,")) for link in parsed.with_attribute("href"))
    assert "default-src 'none'" in page


def test_a_picture_has_each_cell_once_and_south_at_its_bottom() -> None:
    codes = np.array([[1, 1, 2], [0, 2, 2]], np.uint8)
    svg = draw_raster(codes, Colouring(("none", "#111111", "#222222"), (), ()))
    assert '<path fill="#111111" d="M0 1h2v1h-2z"/>' in svg
    assert '<path fill="#222222" d="M1 0h2v1h-2zM2 1h1v1h-1z"/>' in svg
    assert 'fill="none"' not in svg


def test_doubt_is_brighter_than_confidence() -> None:
    def brightness(colour: str) -> float:
        return sum(map(float, colour[4:-1].split(",")))

    shades = [brightness(c) for c in doubt_colours(np.array([0.2, 0.5, 0.7, 0.9, 1.0]))]
    assert shades[0] == shades[1] > shades[2] > shades[3] > shades[4]


def test_what_cannot_be_drawn_is_said_and_the_rest_is_there() -> None:
    salvage = Salvage(LOG)
    nowhere = replace(place(), xyz=np.empty((0, 3)))
    broken = replace(REVIEW, places=(nowhere, place()), states=REVIEW.states, boxes={"a.laz": (None,) * 4})
    parsed = Parsed(render(broken, salvage))
    assert "the map of scans could not be made" in parsed.text
    assert "the picture of 'a.laz' could not be made" in parsed.text
    assert "Class shares" in parsed.text
    assert len(salvage.failures) == 2
