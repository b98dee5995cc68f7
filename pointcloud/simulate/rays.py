"""Where a laser pulse meets the simple solids that the landscape is built from.

A pulse is a straight line from the aircraft to a point (x, y, z) on the ground. Flight lines run along y and
scan lines across them, so a pulse leans in x only: at height h above its ground point it is at x - slope · h.
Every function below finds the heights at which that line is inside a solid, exactly, for many pulses at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Pulses:
    """Pulses of some scan lines of one flight line, arrays (rows, columns): scan line by place across it.

    Attributes:
        x, y, z: where the pulse meets the ground or water, float64 metres.
        slope: tangent of the angle off nadir, positive east of the flight line.
        keys: uint64, the identity from which the pulse's chance is drawn (see `draws`).
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    slope: np.ndarray
    keys: np.ndarray

    def window(self, x: float, y: float, radius: float, height: float) -> tuple[slice, slice]:
        """Rows and columns of all pulses that may pass within `radius` of (x, y) up to `height` over ground.

        The window is a box and holds other pulses too. All lengths in metres.
        """
        south, north, west, east, steepest = self._bounds
        lean = steepest * height
        rows = _span((south <= y + radius) & (north >= y - radius))
        columns = _span((west <= x + radius + lean) & (east >= x - radius - lean))
        return rows, columns

    @cached_property
    def _bounds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
        return (
            self.y.min(axis=1),
            self.y.max(axis=1),
            self.x.min(axis=0),
            self.x.max(axis=0),
            float(np.abs(self.slope).max()),
        )

    def __getitem__(self, window: tuple[slice, slice]) -> Pulses:
        return Pulses(self.x[window], self.y[window], self.z[window], self.slope[window], self.keys[window])

    def at(self, z: np.ndarray) -> np.ndarray:
        """Easting (…) of each pulse at the heights z (…)."""
        return self.x - self.slope * (z - self.z)


def _span(near: np.ndarray) -> slice:
    inside = np.flatnonzero(near)
    return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)


def through_convex(
    pulses: Pulses, planes: np.ndarray, centre: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Heights (…) at which pulses enter and leave a convex solid; enter <= leave where they miss it.

    Args:
        planes: (K, 4) float64 rows (nx, ny, nz, d): the solid is n · (p - centre) <= d for all rows.
        centre: metres, the point the planes are relative to.
    """
    cx, cy, cz = centre
    ground = pulses.z - cz
    x = pulses.x - cx + pulses.slope * ground
    y = pulses.y - cy
    enter = np.full(x.shape, np.inf)
    leave = ground.copy()
    for nx, ny, nz, d in planes:
        offset = nx * x + ny * y - d
        rate = nz - nx * pulses.slope
        # A wall the pulse runs along bounds no height: it is either inside for all of them or for none.
        along = np.abs(rate) < 1e-12
        height = -offset / np.where(along, 1.0, rate)
        enter = np.where(~along & (rate > 0), np.minimum(enter, height), enter)
        leave = np.where(~along & (rate < 0), np.maximum(leave, height), leave)
        enter = np.where(along & (offset > 0), -np.inf, enter)
    return enter + cz, leave + cz


def through_ellipsoid(
    pulses: Pulses, centre: tuple[float, float, float], radius: float, half_height: float
) -> tuple[np.ndarray, np.ndarray]:
    """Heights (…) at which pulses enter and leave an upright ellipsoid, NaN where they miss it."""
    cx, cy, cz = centre
    x = pulses.x - cx - pulses.slope * (cz - pulses.z)
    y = pulses.y - cy
    a = pulses.slope**2 / radius**2 + 1 / half_height**2
    half_b = -x * pulses.slope / radius**2
    c = (x * x + y * y) / radius**2 - 1
    root = _root(half_b * half_b - a * c)
    return cz + (root - half_b) / a, cz - (root + half_b) / a


def through_paraboloid(
    pulses: Pulses, apex: tuple[float, float, float], radius: float, height: float
) -> tuple[np.ndarray, np.ndarray]:
    """Heights (…) at which pulses enter and leave an upright paraboloid under its apex, NaN where they miss.

    The solid is `radius` wide at its flat bottom, `height` under the apex.
    """
    cx, cy, cz = apex
    x = pulses.x - cx - pulses.slope * (cz - pulses.z)
    y = pulses.y - cy
    flare = radius * radius / height
    half_b = flare / 2 - x * pulses.slope
    c = x * x + y * y
    lean = np.maximum(pulses.slope**2, 1e-12)
    far = np.where(half_b > 0, half_b, np.nan) + _root(half_b * half_b - lean * c)
    # The stable form of the quadratic's upper root: the lower one runs to infinity for upright pulses.
    below = c / far
    missed = ~(below < height)
    leave = np.minimum(height, far / lean)
    return np.where(missed, np.nan, cz - below), np.where(missed, np.nan, cz - leave)


def _root(square: np.ndarray) -> np.ndarray:
    return np.sqrt(np.where(square < 0, np.nan, square))
