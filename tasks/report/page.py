"""The page: one HTML text with all it needs, which makes no request to the network."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tasks.report import charts, colouring, pictures, scene, words
from tasks.report.charts import Chart
from tasks.report.content import Report, ScanView
from tasks.report.pictures import Panel
from tasks.report.scene import Scene
from tasks.report.templates import render_page

_POINT_BUDGET = 120_000
_CELL_BUDGET = 600_000
"""Points and cells of the whole page; scans share them, so that a page of many scans stays near 12 MB."""


@dataclass(frozen=True)
class _ScanPart:
    """What the template needs of one scan with points."""

    scan: ScanView
    panels: list[Panel]
    scene: Scene
    confidence: Panel | None
    certainty: Chart | None
    num_lifted: int
    aspect: float
    cell: float

    def figures(self) -> dict[str, Any]:
        """JSON-able figures, by the `data-figure` they are drawn into."""
        found: dict[str, Any] = {f"panel-{i}": panel.figure for i, panel in enumerate(self.panels)}
        found["scene"] = self.scene.figure
        if self.confidence is not None:
            found["confidence"] = self.confidence.figure
        if self.certainty is not None:
            found["certainty"] = self.certainty.figure
        return found


def render(report: Report) -> str:
    """The report as an HTML page of some 5 to 12 MB, most of it plotly.js, which is embedded once.

    The same report gives the same text. Names and facts are shown as text, whatever they hold, and a content
    security policy forbids the page every request and every script but its own two.
    """
    scores = report.scores()
    num_shown = sum(1 for scan in report.scans if len(scan))
    parts = [_part(scan, report, num_shown) if len(scan) else None for scan in report.scans]
    curves = charts.training_curves(report.history)
    data = {
        "scans": [None if part is None else _payload(part) for part in parts],
        "curves": {f"curve-{i}": chart.figure for i, chart in enumerate(curves)},
    }
    own_script = files("tasks.report").joinpath("page.js").read_text(encoding="utf-8")
    # Without the newlines the template would add: the policy names the scripts by their hash.
    scripts = [get_plotlyjs().strip(), own_script.strip()]
    return render_page(
        "page.html",
        title=report.title,
        subtitle=report.subtitle,
        report=report,
        scores=scores,
        tiles=words.tiles(report, scores),
        caveats=words.caveats(report, scores),
        parts=parts,
        curves=curves,
        columns=None if scores is None else charts.confusion_columns(scores),
        confusion=None
        if report.confusion is None or scores is None
        else charts.confusion_rows(report.confusion, scores),
        swatches=dict(
            zip(report.scheme.names, map(colouring.safe_colour, report.scheme.colours), strict=True)
        ),
        policy=_policy(scripts),
        data=Markup(_script_safe(data)),
        plotly=Markup(scripts[0]),
        script=Markup(scripts[1]),
    )


def _part(scan: ScanView, report: Report, num_shown: int) -> _ScanPart:
    max_cells = max(20_000, min(160_000, _CELL_BUDGET // num_shown))
    max_points = max(5_000, min(scene.MAX_POINTS, _POINT_BUDGET // num_shown))
    seen = pictures.lift(scan, report.scheme, report.lifted)
    grid = pictures.lay_grid(seen.xyz, max_cells)
    return _ScanPart(
        scan=scan,
        panels=pictures.panels(seen, report.scheme, grid, report.unit),
        scene=scene.build(scan, report.scheme, report.unit, max_points),
        confidence=pictures.confidence_panel(seen, grid, report.unit),
        num_lifted=len(scan) - len(seen),
        certainty=charts.confidence_chart(scan),
        aspect=float(np.clip(grid.shape[1] / grid.shape[0], 0.75, 2.4)),
        cell=grid.cell,
    )


def _payload(part: _ScanPart) -> dict[str, Any]:
    modes = [
        {
            "key": mode.key,
            "codes": base64.b64encode(mode.codes.tobytes()).decode("ascii"),
            "scale": mode.colouring.scale(),
            "names": mode.colouring.hover_names(),
        }
        for mode in part.scene.modes
    ]
    return {"figures": part.figures(), "modes": modes}


def _script_safe(data: Any) -> str:
    """JSON that cannot end the script element it stands in, nor hold a bare NaN."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: list[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(s.encode("utf-8")).digest()).decode("ascii") for s in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    # Plotly writes style rules and draws maps as data images; nothing else may come from anywhere.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
