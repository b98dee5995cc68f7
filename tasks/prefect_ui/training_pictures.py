"""Curves and confusion of trainings as SVG: pictures for the Prefect UI while they run, no library needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _LEFT, _GAP = 340.0, 200.0, 46.0, 60.0
_TITLE, _LEGEND, _FOOT = 22.0, 17.0, 24.0
_CELL, _NAMES = 54.0, 120.0
_BLUE, _INK = "#2b6cb0", "#223"
GREY = "#8a8f98"
COLOURS = (_BLUE, "#dd7a2f", "#2f855a", "#b83280", "#6b46c1", "#b7791f", "#0e7490", "#9b2c2c")
"""Of the lines of a panel, in turn."""


@dataclass(frozen=True)
class Line:
    """One curve: (epoch, value) points and how it is drawn."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = GREY
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """Curves over one pair of axes; `high` is the upper end, None for the largest value."""

    title: str
    lines: Sequence[Line]
    high: float | None = None


def curve(history: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """(epoch, value) of a figure in records as `TrainState` keeps them; undefined ones are left out."""
    return [(epoch["epoch"], epoch[key]) for epoch in history if epoch.get(key) is not None]


def draw_curves(history: Sequence[dict[str, Any]]) -> str:
    """An SVG of losses and validation mIoU over the epochs of one training."""
    losses = [
        Line(name, curve(history, key), COLOURS[n])
        for n, (name, key) in enumerate((("training", "train_loss"), ("validation", "val_loss")))
    ]
    miou = Line("mIoU", curve(history, "val_miou"), COLOURS[0])
    return draw_panels([Panel("loss", losses), Panel("validation mIoU", [miou], 1.0)])


def draw_panels(panels: Sequence[Panel]) -> str:
    """An SVG of panels, two beside each other, each with its own legend."""
    shapes, y = [], 0.0
    for first in range(0, len(panels), 2):
        row = panels[first : first + 2]
        legends = [_legend(panel.lines) for panel in row]
        top = y + _TITLE + _LEGEND * max(lines for _, lines in legends) + 6
        for n, (panel, (legend, _)) in enumerate(zip(row, legends, strict=True)):
            left = _LEFT + n * (_WIDTH + _GAP)
            shapes.append(
                f'<g transform="translate({left:.0f} {y:.0f})">{_text(0, 16, panel.title)}{legend}</g>'
            )
            shapes.append(f'<g transform="translate({left:.0f} {top:.0f})">{_axes(panel)}</g>')
        y = top + _HEIGHT + _FOOT
    return _svg(2 * (_LEFT + _WIDTH) + _GAP, y, shapes)


def _axes(panel: Panel) -> str:
    values = [value for line in panel.lines for _, value in line.points]
    epochs = [epoch for line in panel.lines for epoch, _ in line.points]
    high = panel.high or max(values, default=1.0) or 1.0
    last = max(epochs, default=0)
    shapes = [
        f'<rect width="{_WIDTH:.0f}" height="{_HEIGHT:.0f}" fill="none" stroke="#ccd"/>',
        _text(-6, 10, f"{high:.2f}", anchor="end"),
        _text(-6, _HEIGHT, "0.00", anchor="end"),
        _text(_WIDTH, _HEIGHT + 16, f"epoch {last:.0f}", anchor="end"),
    ]
    for line in panel.lines:
        path = " ".join(
            f"{_WIDTH * epoch / max(last, 1):.1f},{_HEIGHT * (1 - min(value, high) / high):.1f}"
            for epoch, value in line.points
        )
        shapes.append(
            f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"{_dashes(line)}/>'
        )
    return "".join(shapes)


def _legend(lines: Sequence[Line]) -> tuple[str, int]:
    """Names beside strokes, below the title, and over how many rows they go."""
    shapes, x, row = [], 0.0, 0
    for line in lines:
        width = 34 + 7 * len(line.name)
        if x and x + width > _WIDTH:
            x, row = 0.0, row + 1
        y = _TITLE + _LEGEND * (row + 0.6)
        stroke = f'stroke="{line.colour}" stroke-width="2"{_dashes(line)}'
        shapes.append(
            f'<path d="M{x:.0f} {y - 4:.0f}h18" {stroke}/>' + _text(x + 23, y, line.name, colour=line.colour)
        )
        x += width
    return "".join(shapes), row + 1


def _dashes(line: Line) -> str:
    return ' stroke-dasharray="6 4"' if line.dashed else ""


def draw_confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """An SVG of a (C, C + 1) confusion: per true class (row) the share given each class, the last *other*."""
    shapes = [_text(0, 14, "rows: true class, columns: given class, per cent of the true points")]
    for i, row in enumerate(counts):
        y, whole = _NAMES + _CELL * i, sum(row)
        shapes.append(_text(_NAMES - 6, y + _CELL / 2 + 4, names[i], anchor="end"))
        for j, count in enumerate(row):
            share, x = count / whole if whole else 0.0, _NAMES + _CELL * j
            shapes.append(
                f'<rect x="{x:.0f}" y="{y:.0f}" width="{_CELL:.0f}" height="{_CELL:.0f}" fill="{_BLUE}" '
                f'fill-opacity="{share:.3f}" stroke="#ccd"><title>{count:,} points</title></rect>'
                + _text(
                    x + _CELL / 2, y + _CELL / 2 + 4, f"{100 * share:.0f}" if whole else "–",
                    colour="#fff" if share > 0.6 else _INK, anchor="middle",
                )
            )  # fmt: skip
    for j, name in enumerate([*names, "other"]):
        x = _NAMES + _CELL * (j + 0.5)
        shapes.append(
            f'<g transform="translate({x:.0f} {_NAMES - 6:.0f}) rotate(-40)">{_text(0, 0, name)}</g>'
        )
    return _svg(_NAMES + _CELL * (len(names) + 2), _NAMES + _CELL * len(names) + 4, shapes)


def _text(x: float, y: float, text: str, *, colour: str = _INK, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-family="sans-serif" font-size="12" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def _svg(width: float, height: float, shapes: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(shapes)}</svg>'
    )
