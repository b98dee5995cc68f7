"""The 3-D view of a scan: a thinned cloud that can be turned and coloured in several ways."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from pointcloud.labels import LabelScheme
from tasks.report import colouring
from tasks.report.colouring import Colouring
from tasks.report.content import ScanView

MAX_POINTS = 60_000
"""Points of one scan that are drawn, at most: what a laptop without a graphics card still turns smoothly."""


@dataclass(frozen=True)
class Mode:
    """One way to colour the points: a button's words, a uint8 code per drawn point, what the codes mean."""

    key: str
    label: str
    codes: np.ndarray
    colouring: Colouring


@dataclass(frozen=True)
class Scene:
    """The 3-D view: a Plotly figure as JSON-able data, in the first of its modes.

    Attributes:
        figure: scatter3d of the drawn points, coordinates relative to `origin` in float32.
        origin: (3,) CRS units, what the axes are counted from; whole numbers.
        modes: the buttons in their order.
        drawn: index of every drawn point in the scan, ascending.
    """

    figure: dict[str, Any]
    origin: tuple[float, float, float]
    modes: tuple[Mode, ...]
    drawn: np.ndarray


def thin(num_points: int, max_points: int) -> np.ndarray:
    """Ascending indices of at most `max_points` of the points, the same on every call.

    Drawn at random with a fixed seed: every n-th point would follow the scan lines and draw stripes.
    """
    if num_points <= max_points:
        return np.arange(num_points)
    return np.sort(np.random.default_rng(0).choice(num_points, max_points, replace=False, shuffle=False))


def build(scan: ScanView, scheme: LabelScheme, unit: str, max_points: int = MAX_POINTS) -> Scene:
    """The scene of a scan with at least one point."""
    drawn = thin(len(scan), max_points)
    xyz = scan.xyz[drawn]
    # Absolute coordinates do not fit float32: the browser gets them from a near, round origin.
    origin = np.floor(xyz.min(axis=0))
    near = (xyz - origin).astype(np.float32)
    modes = _modes(scan, scheme, drawn, unit)
    first = modes[0]
    points = go.Scatter3d(
        x=near[:, 0],
        y=near[:, 1],
        z=near[:, 2],
        mode="markers",
        marker={
            "size": 2.2 if len(drawn) > 15_000 else 3.2,
            "color": first.codes,
            "colorscale": first.colouring.scale(),
            "cmin": -0.5,
            "cmax": len(first.colouring.colours) - 0.5,
            "line": {"width": 0},
        },
        hovertemplate="%{text}<br>x + %{x:,.2f}<br>y + %{y:,.2f}<br>z + %{z:,.2f}<extra></extra>",
        meta={"names": first.colouring.hover_names()},
    )
    axes = {
        f"{name}axis": {
            "title": {"text": f"{name} − {start:,.0f} ({unit})" if start else f"{name} ({unit})"},
            "showbackground": False,
            "zeroline": False,
            "showspikes": False,
            "nticks": 5,
        }
        for name, start in zip("xyz", origin.tolist(), strict=True)
    }
    layout = go.Layout(
        scene={
            **axes,
            "aspectmode": "data",
            "camera": {"eye": {"x": 1.05, "y": -1.55, "z": 0.9}, "center": {"x": 0, "y": 0, "z": -0.14}},
            "dragmode": "turntable",
        },
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        uirevision="kept",
    )
    figure: dict[str, Any] = json.loads(go.Figure([points], layout).to_json())
    figure["layout"].pop("template", None)
    return Scene(figure, (float(origin[0]), float(origin[1]), float(origin[2])), modes, drawn)


def _modes(scan: ScanView, scheme: LabelScheme, drawn: np.ndarray, unit: str) -> tuple[Mode, ...]:
    def classes(key: str, label: str, indices: np.ndarray, unknown: str) -> Mode:
        return Mode(key, label, colouring.class_codes(indices), colouring.of_classes(scheme, unknown))

    after = scan.after[drawn]
    modes = [
        classes("after", "Labelled", after, "no class given"),
        classes("before", "As delivered", scan.before[drawn], "unclassified"),
    ]
    if scan.truth is not None:
        truth = scan.truth[drawn]
        outcome = colouring.outcome_codes(after, truth)
        modes += [
            classes("truth", "Truth", truth, "not scored"),
            Mode("errors", "Errors", outcome, colouring.of_outcomes()),
        ]
    if scan.confidence is not None:
        codes = colouring.share_codes(scan.confidence[drawn])
        modes.append(Mode("confidence", "Confidence", codes, colouring.of_confidence()))
    z = scan.xyz[drawn, 2]
    modes.append(Mode("height", "Height", colouring.height_codes(z), colouring.of_heights(z, unit)))
    return tuple(modes)
