"""A map of scans by state, as lidR's catalogue draws it, or of tiles: one picture, no library, no browser needed."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

import numpy as np

from pointcloud.header import ScanHeader
from pointcloud.ledger import DONE, QUARANTINED

WAITING, READING, CUTTING, UNCHANGED = "waiting", "reading", "cutting", "unchanged"
UNREACHED = "unreached"
"""State of a scan that storage did not give or take, though it was waited for: no fault of the scan."""
COLOURS = {
    WAITING: "#d9dde3", READING: "#f2c14e", CUTTING: "#f08a4b", DONE: "#3a9d6e", UNCHANGED: "#9cc9b2",
    QUARANTINED: "#c8354a", UNREACHED: "#7d4fa3",
}  # fmt: skip
"""State of a scan -> its colour, in the order of the legend."""

_WIDTH, _LEGEND = 800.0, 26.0

Box = tuple[float, float, float, float]


def boxes_of(headers: Mapping[str, ScanHeader]) -> dict[str, Box]:
    """Where scans lie, of those whose headers tell."""
    found = {}
    for scan, header in headers.items():
        if header.bounds is not None and np.isfinite(header.bounds).all():
            (x0, y0), (x1, y1) = header.bounds[:, :2].tolist()
            found[scan] = (x0, y0, x1, y1)
    return found


def draw_map(boxes: Mapping[str, Box], states: Mapping[str, str]) -> str:
    """An SVG of the scans' footprints by state, north up.

    Args:
        boxes: scan -> x_min, y_min, x_max, y_max in CRS units; scans without a place on the ground are left out.
        states: scan -> one of `COLOURS`.
    """
    counts = {state: sum(found == state for found in states.values()) for state in COLOURS}
    return draw_boxes(
        [
            (box, COLOURS.get(states.get(scan, WAITING), COLOURS[WAITING]), scan)
            for scan, box in boxes.items()
        ],
        [(colour, f"{state} {counts[state]:,}") for state, colour in COLOURS.items()],
    )


def draw_boxes(boxes: Sequence[tuple[Box, str, str]], legend: Sequence[tuple[str, str]]) -> str:
    """An SVG of rectangles on the ground, north up.

    Args:
        boxes: (x_min, y_min, x_max, y_max) in CRS units, colour and what it is called.
        legend: colours and their meanings.
    """
    x_min, y_min = (min((box[n] for box, *_ in boxes), default=0.0) for n in (0, 1))
    x_max, y_max = (max((box[n] for box, *_ in boxes), default=1.0) for n in (2, 3))
    scale = _WIDTH / max(x_max - x_min, y_max - y_min, 1e-9)
    height = max((y_max - y_min) * scale, 40.0)
    shapes = []
    for (x0, y0, x1, y1), colour, name in boxes:
        left, top = (x0 - x_min) * scale, (y_max - y1) * scale
        # A single point is drawn too.
        wide, high = max((x1 - x0) * scale, 3.0), max((y1 - y0) * scale, 3.0)
        shapes.append(
            f'<rect x="{left:.1f}" y="{top + _LEGEND:.1f}" width="{wide:.1f}" height="{high:.1f}" fill="{colour}" '
            f'stroke="#fff" stroke-width="0.6"><title>{escape(name)}</title></rect>'
        )
    words, at = [], 0.0
    for colour, text in legend:
        words.append(
            f'<rect x="{at:.0f}" y="5" width="11" height="11" fill="{colour}"/>'
            f'<text x="{at + 15:.0f}" y="15" font-family="sans-serif" font-size="12" fill="#223">{escape(text)}</text>'
        )
        at += 31 + 7 * len(text)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {max(_WIDTH, at):.0f} {height + _LEGEND:.0f}" '
        f'width="{max(_WIDTH, at):.0f}"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(words)}{''.join(shapes)}</svg>"
    )


def as_data_uri(svg: str) -> str:
    """A picture as an address, so that it needs no place to be kept."""
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"
