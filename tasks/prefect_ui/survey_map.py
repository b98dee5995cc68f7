"""A map of scans and their tiles by state, as lidR's catalogue draws it, written as SVG without a library."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from pointcloud.cloud import ScanHeader
from pointcloud.storage.ledger import CUTTING, DONE, QUARANTINED, READING, UNCHANGED, UNREACHED, WAITING

COLOURS = {
    WAITING: "#d9dde3", READING: "#f2c14e", CUTTING: "#f08a4b", DONE: "#3a9d6e", UNCHANGED: "#9cc9b2",
    QUARANTINED: "#c8354a", UNREACHED: "#7d4fa3",
}  # fmt: skip
"""State of a scan -> its colour, in the order of the legend."""

_NEEDS_A_LOOK = [QUARANTINED, UNREACHED, CUTTING, READING, WAITING, DONE, UNCHANGED]
_WIDTH, _LEGEND = 800.0, 26.0

Box = tuple[float, float, float, float]
_MOST_SHAPES = 4000  # of a picture that a browser draws at once, and that Prefect takes: 1.5 MB


@dataclass(frozen=True)
class TileRuns:
    """The tiles of a scan, row after row.

    Attributes:
        size: edge of a tile in CRS units.
        runs: (j, first i, last i) of tiles without a gap.
    """

    size: float
    runs: tuple[tuple[int, int, int], ...]

    @staticmethod
    def of(tiles: np.ndarray, size: float) -> TileRuns:
        """Make runs of tiles (T, 2), T ≥ 1, (i, j) each, in any order; repeated tiles count once."""
        j, i = np.unique(tiles[:, ::-1], axis=0).astype(int).T
        breaks = np.flatnonzero((np.diff(j) != 0) | (np.diff(i) != 1))
        first, last = np.append(0, breaks + 1), np.append(breaks, len(i) - 1)
        return TileRuns(size, tuple(zip(j[first].tolist(), i[first].tolist(), i[last].tolist(), strict=True)))

    def __len__(self) -> int:
        return sum(last - first + 1 for _, first, last in self.runs)

    def boxes(self, joined: bool = False) -> Iterator[Box]:
        """Where each tile lies, or each run of them."""
        for j, first, last in self.runs:
            for i in range(first, last + 1, last - first + 1 if joined else 1):
                end = last if joined else i
                yield i * self.size, j * self.size, (end + 1) * self.size, (j + 1) * self.size

    def to_dict(self) -> dict[str, Any]:
        """The runs as types that JSON has."""
        return asdict(self)

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> TileRuns:
        """Read what `to_dict` has made."""
        return TileRuns(record["size"], tuple((j, first, last) for j, first, last in record["runs"]))


def boxes_of(headers: Mapping[str, ScanHeader]) -> dict[str, Box]:
    """Bounds of the scans whose headers hold them."""
    found = {}
    for scan, header in headers.items():
        if header.bounds is not None and np.isfinite(header.bounds).all():
            (x0, y0), (x1, y1) = header.bounds[:, :2].tolist()
            found[scan] = (x0, y0, x1, y1)
    return found


def draw_map(
    boxes: Mapping[str, Box], states: Mapping[str, str], tiles: Mapping[str, TileRuns] | None = None
) -> str:
    """An SVG of scans by state, north up: of those whose tiles are known the tiles, of the others the footprints.

    Args:
        boxes: scan -> x_min, y_min, x_max, y_max in CRS units; scans without a place on the ground are left out.
        states: scan -> one of `COLOURS`.
        tiles: scan -> its tiles. Where there are thousands, those in a row are drawn as one, or none at all.
    """
    tiles = tiles or {}
    joined = sum(map(len, tiles.values())) > _MOST_SHAPES
    if joined and sum(len(of.runs) for of in tiles.values()) > _MOST_SHAPES:
        tiles = {}
    counts = {state: sum(found == state for found in states.values()) for state in COLOURS}
    if len(boxes) > _MOST_SHAPES:
        boxes, states, tiles = *_gathered(boxes, states), {}
    shapes = []
    for scan, box in boxes.items():
        colour = COLOURS.get(states.get(scan, WAITING), COLOURS[WAITING])
        places = tiles[scan].boxes(joined) if scan in tiles else [box]
        shapes += [(place, colour, scan) for place in places]
    return draw_boxes(shapes, [(colour, f"{state} {counts[state]:,}") for state, colour in COLOURS.items()])


def _gathered(boxes: Mapping[str, Box], states: Mapping[str, str]) -> tuple[dict[str, Box], dict[str, str]]:
    """Scans that lie close together joined into one, in the state of the one that most needs a look."""
    side = int(_MOST_SHAPES**0.5)
    ground = np.array(list(boxes.values())).reshape(-1, 2, 2)
    centres = ground.mean(axis=1)
    low, high = centres.min(axis=0), centres.max(axis=0)
    cells = np.minimum((centres - low) / np.maximum(high - low, 1e-9) * side, side - 1).astype(int)
    members: dict[int, list[int]] = {}
    for number, cell in enumerate((cells[:, 0] * side + cells[:, 1]).tolist()):
        members.setdefault(cell, []).append(number)
    names, places, worst = list(boxes), dict[str, Box](), dict[str, str]()
    for numbers in members.values():
        (x0, y0), (x1, y1) = ground[numbers, 0].min(axis=0).tolist(), ground[numbers, 1].max(axis=0).tolist()
        name = f"{len(numbers)} scans, {names[numbers[0]]} first" if len(numbers) > 1 else names[numbers[0]]
        places[name] = (x0, y0, x1, y1)
        worst[name] = min((states.get(names[n], WAITING) for n in numbers), key=_NEEDS_A_LOOK.index)
    return places, worst


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
    """A picture as a data URI, so that it need not be stored elsewhere."""
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"
