"""Charts and tables of figures: confusion, scores per class, training curves, how sure the labels are."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from models.metrics import Scores
from pointcloud.labels import IGNORE
from tasks.report.content import ScanView

_BLUE, _ORANGE, _GREY = "#4a90c4", "#e07b39", "#8a929b"
_NUM_BINS = 20


@dataclass(frozen=True)
class Chart:
    """A heading, a sentence that says what the picture shows, and a Plotly figure as JSON-able data."""

    title: str
    note: str
    figure: dict[str, Any]


@dataclass(frozen=True)
class ConfusionCell:
    """`count` points of the row's class were given the column's: `share` of the row, None in an empty row."""

    count: int
    share: float | None
    is_right: bool


def confusion_columns(scores: Scores) -> tuple[str, ...]:
    """Heads of the columns of `confusion_rows`; *other* only where it holds points."""
    return (*scores.names, "other") if scores.num_other else scores.names


def confusion_rows(confusion: np.ndarray, scores: Scores) -> list[tuple[str, list[ConfusionCell]]]:
    """(true class, cells), row-normalised, of a (C, C + 1) or (C, C) confusion."""
    width = len(confusion_columns(scores))
    rows = []
    for i, (name, counts) in enumerate(zip(scores.names, confusion.tolist(), strict=True)):
        whole = sum(counts)
        cells = [ConfusionCell(n, n / whole if whole else None, i == j) for j, n in enumerate(counts[:width])]
        rows.append((name, cells))
    return rows


def training_curves(history: list[dict[str, Any]]) -> list[Chart]:
    """Loss, and validation mIoU, over the epochs; a chart without any value is left out."""
    charts = []
    losses = [
        line
        for key, name, colour, dash in (
            ("train_loss", "training", _BLUE, "solid"),
            ("val_loss", "validation", _ORANGE, "dash"),
        )
        if (line := _line(history, key, name, colour, dash)) is not None
    ]
    if losses:
        what = "Training and validation loss" if len(losses) == 2 else f"The {losses[0].name} loss"
        charts.append(Chart("Loss", f"{what} over the epochs.", _curves(losses, {"rangemode": "tozero"})))
    miou = _line(history, "val_miou", "validation mIoU", _BLUE, "solid")
    if miou is not None:
        best = int(np.argmax(miou.y))
        star = go.Scatter(
            x=[miou.x[best]],
            y=[miou.y[best]],
            mode="markers",
            name="best",
            marker={"symbol": "star", "size": 14, "color": _ORANGE},
        )
        note = f"Best {100 * miou.y[best]:.1f} % at epoch {miou.x[best]}, last {100 * miou.y[-1]:.1f} %."
        axis = {"tickformat": ".0%", "hoverformat": ".1%", "rangemode": "tozero"}
        charts.append(Chart("Validation mIoU", note, _curves([miou, star], axis)))
    return charts


def confidence_chart(scan: ScanView) -> Chart | None:
    """How many points have which confidence and, with truth, how many of those are right.

    None when no point has a confidence.
    """
    if scan.confidence is None or np.isnan(scan.confidence).all():
        return None
    known = ~np.isnan(scan.confidence)
    bins = np.minimum((scan.confidence[known] * _NUM_BINS).astype(np.int64), _NUM_BINS - 1)
    counts = np.bincount(bins, minlength=_NUM_BINS)
    middle = (np.arange(_NUM_BINS) + 0.5) / _NUM_BINS
    traces: list[go.Bar | go.Scatter] = [
        go.Bar(
            x=middle,
            y=counts / counts.sum(),
            width=0.9 / _NUM_BINS,
            name="share of all points",
            marker={"color": _BLUE, "opacity": 0.75, "line": {"width": 0}},
        )
    ]
    note = "Share of the points at each confidence."
    if scan.truth is not None:
        truth, after = scan.truth[known], scan.after[known]
        scored = truth != IGNORE
        num_scored = np.bincount(bins[scored], minlength=_NUM_BINS)
        num_right = np.bincount(bins[scored & (after == truth)], minlength=_NUM_BINS)
        some = num_scored > 0
        traces += [
            go.Scatter(
                x=middle[some],
                y=num_right[some] / num_scored[some],
                name="of the scored ones, right",
                mode="lines+markers",
                line={"color": _ORANGE, "width": 2},
                customdata=num_scored[some],
                hovertemplate="%{y:.1%} of %{customdata:,} scored points right<extra></extra>",
            ),
            go.Scatter(
                x=[0, 1],
                y=[0, 1],
                name="confidence = share right",
                mode="lines",
                line={"color": _GREY, "width": 1, "dash": "dot"},
                hoverinfo="skip",
            ),
        ]
        note = "Bars: share of the points. Line: how many of them are right; ideally on the dotted diagonal."
    layout = {
        "xaxis": {"title": {"text": "confidence"}, "range": [0, 1], "tickformat": ".0%"},
        "yaxis": {"range": [0, 1.02], "tickformat": ".0%", "hoverformat": ".1%"},
    }
    return Chart("How sure the labels are", note, _figure(traces, layout))


def _line(history: list[dict[str, Any]], key: str, name: str, colour: str, dash: str) -> go.Scatter | None:
    """The epochs that have a finite value, or None when none has."""
    points = [
        (record["epoch"], float(record[key]))
        for record in history
        if record.get(key) is not None and math.isfinite(record[key])
    ]
    if not points:
        return None
    epochs, values = zip(*points, strict=True)
    # Plain tuples, not arrays: a run of one epoch must still show a point.
    mode = "lines+markers" if len(points) < 30 else "lines"
    line = {"color": colour, "width": 2.2, "dash": dash}
    return go.Scatter(x=epochs, y=values, name=name, mode=mode, line=line)


def _curves(lines: list[go.Scatter], yaxis: dict[str, Any]) -> dict[str, Any]:
    xaxis = {"title": {"text": "epoch"}, "tickformat": "d", "hoverformat": "d"}
    return _figure(lines, {"xaxis": xaxis, "yaxis": yaxis, "hovermode": "x unified"})


def _figure(traces: list[Any], layout: dict[str, Any]) -> dict[str, Any]:
    shared = {
        "margin": {"l": 58, "r": 12, "t": 34, "b": 48},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "bargap": 0,
    }
    figure: dict[str, Any] = json.loads(go.Figure(traces, go.Layout(**shared, **layout)).to_json())
    figure["layout"].pop("template", None)
    return figure
