"""Curves and confusion of a training as SVG: pictures for the Prefect UI while it runs, no library needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 340.0, 200.0, 46.0, 40.0, 60.0
_CELL, _NAMES = 54.0, 120.0
_BLUE, _ORANGE, _INK = "#2b6cb0", "#dd7a2f", "#223"
_CURVES = (
    ("loss", (("train_loss", "training", _BLUE), ("val_loss", "validation", _ORANGE))),
    ("validation mIoU", (("val_miou", "mIoU", _BLUE),)),
)


def draw_curves(history: Sequence[dict[str, Any]]) -> str:
    """An SVG of losses and validation mIoU over the epochs of `history`, records as `TrainState` keeps them."""
    shapes = []
    for n, (title, lines) in enumerate(_CURVES):
        left = _LEFT + n * (_WIDTH + _GAP)
        values = [epoch[key] for epoch in history for key, _, _ in lines if epoch.get(key) is not None]
        low, high = (0.0, 1.0) if title != "loss" else (0.0, max(values, default=1.0) or 1.0)
        shapes.append(
            f'<rect x="{left:.0f}" y="{_TOP:.0f}" width="{_WIDTH:.0f}" height="{_HEIGHT:.0f}" '
            'fill="none" stroke="#ccd"/>'
            + _text(left, 16, title)
            + _text(left - 6, _TOP + 10, f"{high:.2f}", anchor="end")
            + _text(left - 6, _TOP + _HEIGHT, f"{low:.2f}", anchor="end")
            + _text(left + _WIDTH, _TOP + _HEIGHT + 16, f"epoch {_last(history)}", anchor="end")
        )
        for row, (key, name, colour) in enumerate(lines):
            shapes.append(_text(left + 90 * row, 33, name, colour=colour))
            points = [
                (left + _WIDTH * epoch["epoch"] / max(_last(history), 1), epoch[key])
                for epoch in history
                if epoch.get(key) is not None
            ]
            path = " ".join(
                f"{x:.1f},{_TOP + _HEIGHT * (1 - (min(y, high) - low) / (high - low)):.1f}" for x, y in points
            )
            shapes.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return _svg(2 * (_LEFT + _WIDTH) + _GAP, _TOP + _HEIGHT + 24, shapes)


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


def _last(history: Sequence[dict[str, Any]]) -> int:
    return history[-1]["epoch"] if history else 0


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
