"""The page about a segment run: what was labelled, how sure the labels are, and which places to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from markupsafe import Markup
from plotly.colors import sample_colorscale, sequential

from pointcloud.errors import SchemaError
from pointcloud.labels import LabelScheme
from pointcloud.quality.doubtful_tiles import WorstTile
from pointcloud.quality.drift import Range, Seen
from pointcloud.storage.ledger import DONE, Record
from tasks.prefect_ui.survey_map import Box, draw_boxes, draw_map
from tasks.report import colouring, pictures
from tasks.report.colouring import Colouring
from tasks.report.salvage import Salvage
from tasks.report.templates import render_page
from tasks.report.words import Tile

_PICTURE_CELLS = 4_000
_SHOWN_ROWS = 40
_CALM_CONFIDENCE = 0.5  # below it a tile has the colour of the greatest doubt
_STRANGE_SHARE = 0.2  # a class share this far from the collection's is marked


@dataclass(frozen=True)
class Doubtful:
    """A tile on the map: where it lies, its mean confidence, what it is called."""

    box: Box
    confidence: float
    name: str


@dataclass(frozen=True)
class Review:
    """All of one page.

    Attributes:
        title, subtitle: of the page.
        scheme: classes of the checkpoint.
        records: of all scans.
        states: scan -> one of `tasks.prefect_ui.survey_map.COLOURS`; boxes: scan -> where it lies, where known.
        tiles: for the map of doubt.
        places: the most doubtful ones, the worst first; crs: scan -> what its coordinates are.
        seen: what the checkpoint's training saw; None where it is not known.
        figures: label, value and a few words for the head of the page.
        facts: further ones for its end.
        warnings: sentences that stand out at the head of the page.
    """

    title: str
    subtitle: str
    scheme: LabelScheme
    records: tuple[Record, ...]
    states: dict[str, str]
    boxes: dict[str, Box]
    tiles: tuple[Doubtful, ...] = ()
    places: tuple[WorstTile, ...] = ()
    crs: dict[str, str] = field(default_factory=dict)
    seen: Seen | None = None
    figures: tuple[Tile, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shares:
    """A row of the table of class shares: those of one scan, each None or its share, and how far they are off."""

    name: str
    num_points: int
    shares: tuple[float, ...]
    strange: tuple[bool, ...]
    distance: float


def class_shares(records: Sequence[Record], names: Sequence[str]) -> tuple[Shares | None, list[Shares]]:
    """The shares of the collection and of each of its scans, the strangest scans first; None without any label.

    The distance is the share of a scan's points that would need another class to look like the collection
    (total variation).
    """
    counts = {r.scan: _counts(r, names) for r in records if r.state == DONE}
    counts = {scan: row for scan, row in counts.items() if row.sum()}
    if not counts:
        return None, []
    total = np.sum(list(counts.values()), axis=0)
    whole = total / total.sum()
    rows = []
    for scan, row in counts.items():
        share = row / row.sum()
        strange = np.abs(share - whole) > _STRANGE_SHARE
        distance = float(np.abs(share - whole).sum() / 2)
        rows.append(Shares(scan, int(row.sum()), tuple(share.tolist()), tuple(strange.tolist()), distance))
    nothing = (False,) * len(names)
    return (
        Shares("all scans", int(total.sum()), tuple(whole.tolist()), nothing, 0.0),
        sorted(rows, key=lambda row: (-row.distance, row.name)),
    )


def _counts(record: Record, names: Sequence[str]) -> np.ndarray:
    found = record.details.get("class_counts", {})
    return np.array([found.get(name, 0) for name in names], np.int64)


def render(review: Review, salvage: Salvage) -> str:
    """The page as HTML text that asks the network for nothing and runs no script; some 100 kB and up.

    What cannot be drawn is left out and named at the head of the page, with what failed before.
    """
    none: tuple[Shares | None, list[Shares]] = (None, [])
    whole, rows = salvage.make(
        "the class shares", lambda: class_shares(review.records, review.scheme.names), none
    )
    bad = [r for r in review.records if r.state != DONE]
    drifted = [r for r in review.records if r.details.get("drift")]
    state_map = (
        salvage.make("the map of scans", lambda: draw_map(review.boxes, review.states), "")
        if review.boxes
        else ""
    )
    doubts = (
        salvage.make("the map of confidences", lambda: doubt_map(review.tiles), "") if review.tiles else ""
    )
    places = [
        salvage.make(f"the picture of {place.scan!r}", partial(_place, place, review), None)
        for place in review.places
    ]
    nothing: list[tuple[str, str, str]] = []
    comparisons = [
        (r, salvage.make(f"the comparison of {r.scan!r}", partial(compare, r, review.seen), nothing))
        for r in drifted[:_SHOWN_ROWS]
    ]
    return render_page(
        "review.html",
        warnings=[*review.warnings, *salvage.failures],
        title=review.title,
        subtitle=review.subtitle,
        review=review,
        bad=sorted(bad, key=lambda r: r.scan),
        drifted=comparisons,
        num_drifted=len(drifted),
        whole=whole,
        rows=rows[:_SHOWN_ROWS],
        num_rows=len(rows),
        state_map=Markup(state_map),
        doubt_map=Markup(doubts),
        places=[place for place in places if place is not None],
        legend=colouring.of_classes(review.scheme, "no class given").swatches[:-1],
        ramp=doubt_colours(np.linspace(_CALM_CONFIDENCE, 1, 9)),
        calm=_CALM_CONFIDENCE,
    )


def compare(record: Record, training: Seen | None) -> list[tuple[str, str, str]]:
    """Rows of quantity, range of the training, range of a scan; one for each quantity that both have."""
    try:
        here = Seen.from_dict(record.details["seen"])
    except (KeyError, TypeError, SchemaError):  # of a Pointloom before this one
        return []
    if training is None:
        return []
    saw, has = training.in_words(), here.in_words()
    return [(what, _in_figures(saw[what]), _in_figures(has[what])) for what in saw if what in has]


def _in_figures(found: Range) -> str:
    return f"{found.low:,.4g} · {found.middle:,.4g} · {found.high:,.4g}"


def doubt_colours(confidences: np.ndarray) -> list[str]:
    """Colours of mean confidences: bright places are doubtful."""
    doubt = (1 - np.asarray(confidences, np.float64)) / (1 - _CALM_CONFIDENCE)
    return list(sample_colorscale(sequential.Cividis, doubt.clip(0, 1).tolist()))


def doubt_map(tiles: Sequence[Doubtful]) -> str:
    """An SVG of tiles, or scans, by their mean confidence."""
    colours = doubt_colours(np.array([tile.confidence for tile in tiles]))
    steps = np.linspace(_CALM_CONFIDENCE, 1, 6)
    legend = [
        (colour, f"{'≤ ' if n == 0 else ''}{step:.0%}")
        for n, (colour, step) in enumerate(zip(doubt_colours(steps), steps, strict=True))
    ]
    shapes = [
        (t.box, colour, f"{t.name}: {t.confidence:.0%}") for t, colour in zip(tiles, colours, strict=True)
    ]
    return draw_boxes(shapes, legend)


def _place(place: WorstTile, review: Review) -> dict[str, object]:
    """What the template needs of a doubtful place."""
    grid = pictures.lay_grid(place.xyz, _PICTURE_CELLS)
    classes = colouring.of_classes(review.scheme, "no class given")
    doubt = Colouring(("none", "none", *doubt_colours(np.arange(101) / 100)), (), ())
    low, high = place.xyz.min(axis=0), place.xyz.max(axis=0)
    x, y, _ = (low + high) / 2
    return {
        "scan": place.scan,
        "tile": f"{place.tile[0]}, {place.tile[1]}",
        "confidence": place.confidence,
        "where": f"x {x:,.1f}  y {y:,.1f}  z {low[2]:,.1f} to {high[2]:,.1f}",
        "crs": review.crs.get(place.scan, ""),
        "classes": Markup(draw_raster(grid.raster(colouring.class_codes(place.classes)), classes)),
        "doubt": Markup(draw_raster(grid.raster_of_means(place.confidences), doubt)),
    }


def draw_raster(codes: np.ndarray, colours: Colouring) -> str:
    """An SVG of a picture (rows, columns) of uint8 codes, row 0 at the bottom; runs of a colour are one stroke each."""
    height, width = codes.shape
    paths = []
    for code in np.unique(codes):
        if code == colouring.EMPTY:
            continue
        strokes = []
        for row, line in enumerate(codes[::-1] == code):
            edges = np.flatnonzero(np.diff(line, prepend=False, append=False))
            strokes += [
                f"M{a} {row}h{b - a}v1h{a - b}z" for a, b in zip(edges[::2], edges[1::2], strict=True)
            ]
        paths.append(f'<path fill="{colours.colours[code]}" d="{"".join(strokes)}"/>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" shape-rendering="crispEdges">'
        f"{''.join(paths)}</svg>"
    )
