"""The scan from above: what lies on top in every cell of a grid, as delivered, as labelled, in truth."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from pointcloud.labels import IGNORE, LabelScheme
from tasks.report import colouring
from tasks.report.colouring import Colouring
from tasks.report.content import ScanView

_POINTS_PER_CELL = 2.0
"""Wanted on average in a cell that has any: fewer leave holes, more waste detail."""


@dataclass(frozen=True)
class Grid:
    """Square cells over a scan's footprint; row 0 is the southernmost.

    Attributes:
        west, south: the outer corner, CRS units.
        cell: side of a cell, CRS units.
        shape: rows, columns.
        cells: (P,) int64, the flat cell index of every point.
        top: (N,) int64, the index of the highest point of each of the N cells that have any.
    """

    west: float
    south: float
    cell: float
    shape: tuple[int, int]
    cells: np.ndarray
    top: np.ndarray

    def raster(self, codes: np.ndarray) -> np.ndarray:
        """(rows, columns) uint8: the code of the topmost point, `EMPTY` where there is no point."""
        picture = np.full(self.shape[0] * self.shape[1], colouring.EMPTY, np.uint8)
        picture[self.cells[self.top]] = codes[self.top]
        return picture.reshape(self.shape)

    def raster_of_means(self, values: np.ndarray) -> np.ndarray:
        """(rows, columns) uint8 share codes: the mean in each cell of (P,) values in [0, 1], NaN left out."""
        size = self.shape[0] * self.shape[1]
        known = ~np.isnan(values)
        counts = np.bincount(self.cells[known], minlength=size)
        sums = np.bincount(self.cells[known], values[known], minlength=size)
        means = np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0)
        picture = colouring.share_codes(means)
        occupied = np.zeros(size, bool)
        occupied[self.cells[self.top]] = True
        return np.where(occupied, picture, colouring.EMPTY).astype(np.uint8).reshape(self.shape)


@dataclass(frozen=True)
class Panel:
    """One map: a heading, a sentence, a Plotly figure as JSON-able data, and its colouring."""

    title: str
    note: str
    figure: dict[str, Any]
    colouring: Colouring


def lay_grid(xyz: np.ndarray, max_cells: int) -> Grid:
    """Grid over the points (P, 3), P > 0, with at most about `max_cells` cells, fine as the density allows.

    The side of a cell is 1, 2 or 5 times a power of ten. It follows from the area that holds points, not from
    the bounding box: a corridor across an empty square still gets its detail.
    """
    low, high = xyz[:, :2].min(axis=0), xyz[:, :2].max(axis=0)
    width, depth = (high - low).tolist()
    # A line of points has no area to speak of, so its length bounds the cells too; points in one place have
    # neither. And a cell must be told from its neighbour in float64, at the coordinates of a national grid.
    resolution = 64 * float(np.spacing(np.abs(xyz[:, :2]).max()))
    least = max(math.sqrt(width * depth / max_cells), max(width, depth) / max_cells, resolution)
    first = max(math.sqrt(width * depth * _POINTS_PER_CELL / len(xyz)), least)
    coarse = ((xyz[:, :2] - low) // first).astype(np.int64)
    columns = int(coarse[:, 0].max()) + 1
    filled = np.count_nonzero(np.bincount(coarse[:, 1] * columns + coarse[:, 0]))
    wanted = first * math.sqrt(filled * _POINTS_PER_CELL / len(xyz)) if width or depth else 1.0
    cell = _round_side(max(wanted, least))

    west, south = np.floor(low / cell) * cell
    # At least 0: the corner times the cell may round to just beyond the point it came from.
    column, row = np.floor((xyz[:, :2] - (west, south)) / cell).astype(np.int64).clip(0).T
    shape = (int(row.max()) + 1, int(column.max()) + 1)
    cells = row * shape[1] + column
    highest = np.full(shape[0] * shape[1], -np.inf)
    np.maximum.at(highest, cells, xyz[:, 2])
    on_top = np.flatnonzero(xyz[:, 2] == highest[cells])
    # Of points equally high the first wins: unique keeps the first index.
    _, first = np.unique(cells[on_top], return_index=True)
    return Grid(float(west), float(south), cell, shape, cells, on_top[first])


def lift(scan: ScanView, scheme: LabelScheme, lifted: tuple[str, ...]) -> ScanView:
    """The scan without the points of the lifted classes; the scan as it is where that would leave nothing."""
    labels = scan.after if scan.truth is None else scan.truth
    kept = ~np.isin(labels, [scheme.names.index(name) for name in lifted])
    if kept.all() or not kept.any():
        return scan
    return ScanView(
        scan.name,
        scan.xyz[kept],
        scan.before[kept],
        scan.after[kept],
        None if scan.truth is None else scan.truth[kept],
        None if scan.confidence is None else scan.confidence[kept],
    )


def panels(scan: ScanView, scheme: LabelScheme, grid: Grid, unit: str) -> list[Panel]:
    """The maps of a scan: as delivered, as labelled, and with truth the truth and where the label differs."""
    as_delivered = colouring.of_classes(scheme, "unclassified")
    found = [
        ("As delivered", "The class in the file.", scan.before, as_delivered),
        (
            "Labelled by Pointloom",
            "The class predicted.",
            scan.after,
            colouring.of_classes(scheme, "no class given"),
        ),
    ]
    if scan.truth is not None:
        found.append(
            (
                "Truth",
                "The reference the scores are against.",
                scan.truth,
                colouring.of_classes(scheme, "not scored"),
            )
        )
    maps = [
        Panel(title, note, _figure(grid, grid.raster(colouring.class_codes(indices)), colours, unit), colours)
        for title, note, indices, colours in found
    ]
    if scan.truth is not None:
        wrong = np.where(scan.truth == IGNORE, np.nan, scan.after != scan.truth)
        colours = colouring.of_error_shares()
        figure = _figure(grid, grid.raster_of_means(wrong), colours, unit)
        note = "Share of a cell's scored points, at every height, whose label is not the truth."
        maps.append(Panel("Where they differ", note, figure, colours))
    return maps


def confidence_panel(scan: ScanView, grid: Grid, unit: str) -> Panel | None:
    """The map of the mean confidence in each cell, or None when the scan has no confidence."""
    if scan.confidence is None:
        return None
    colours = colouring.of_confidence()
    figure = _figure(grid, grid.raster_of_means(scan.confidence), colours, unit)
    return Panel(
        "Confidence from above", "Mean of a cell's points; bright places are doubtful.", figure, colours
    )


def _round_side(side: float) -> float:
    power = 10.0 ** math.floor(math.log10(side))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= side * (1 - 1e-9))


def _figure(grid: Grid, picture: np.ndarray, colours: Colouring, unit: str) -> dict[str, Any]:
    rows, columns = grid.shape
    # Enough decimals to tell cells apart, in metres as in degrees.
    digits = f",.{max(0, math.ceil(-math.log10(grid.cell))) + 1}~f"
    heatmap = go.Heatmap(
        z=picture,
        x0=grid.west + grid.cell / 2,
        dx=grid.cell,
        y0=grid.south + grid.cell / 2,
        dy=grid.cell,
        zmin=-0.5,
        zmax=len(colours.colours) - 0.5,
        colorscale=colours.scale(),
        showscale=False,
        hovertemplate=f"%{{text}}<br>x %{{x:{digits}}}<br>y %{{y:{digits}}}<extra></extra>",
        meta={"names": colours.hover_names()},
    )
    axis = {"tickformat": digits, "ticks": "outside", "showgrid": False, "zeroline": False, "nticks": 5}
    layout = go.Layout(
        xaxis={
            **axis,
            "title": {"text": f"x ({unit})"},
            "range": [grid.west, grid.west + columns * grid.cell],
        },
        yaxis={
            **axis,
            "title": {"text": f"y ({unit})"},
            "range": [grid.south, grid.south + rows * grid.cell],
            "scaleanchor": "x",
        },
        margin={"l": 84, "r": 12, "t": 32, "b": 48},
    )
    figure: dict[str, Any] = json.loads(go.Figure([heatmap], layout, skip_invalid=False).to_json())
    figure["layout"].pop("template", None)
    return figure
