"""Bare earth and ponds of the simulated landscape, a pure function of (seed, x, y)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pointcloud.simulate import draws

QUARTER_M = 400.0
"""The landscape holds one pond and one stretch of power line per square of this size."""

_BASE_HEIGHT_M = 80.0
# Wavelength and amplitude in metres: hills, swells, and the micro-relief that real ground has.
_WAVES = ((930.0, 9.0), (540.0, 5.0), (310.0, 2.5), (170.0, 0.9), (23.0, 0.12), (9.0, 0.05))
_BASIN = 1.7  # a pond's basin ends at this multiple of its shore radius
_SHORE_RISE_M = 0.15


@dataclass(frozen=True)
class Pond:
    """A still water body: centre and mean radius (m), the phases that shape its shore, its level (m)."""

    x: float
    y: float
    radius: float
    phases: tuple[float, float]
    level: float

    def shore_ratio(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distance from the centre over the distance to the shore in that direction; below 1 is water."""
        angle = np.arctan2(y - self.y, x - self.x)
        shore = 1 + 0.18 * np.cos(2 * angle + self.phases[0]) + 0.08 * np.cos(3 * angle + self.phases[1])
        return np.hypot(x - self.x, y - self.y) / (self.radius * shore)

    @property
    def reach(self) -> float:
        """No point further than this from the centre, in metres, is changed by the pond."""
        return self.radius * 1.26 * _BASIN


@dataclass(frozen=True)
class Terrain:
    """Smooth hills with ponds. Coordinates are absolute metres; heights are over no particular datum."""

    seed: int

    @cached_property
    def _waves(self) -> list[tuple[float, float, float, float]]:
        rng = draws.generator(self.seed, 1)
        waves = []
        for wavelength, amplitude in _WAVES:
            heading, phase = rng.uniform(0, 2 * np.pi, 2)
            number = 2 * np.pi / wavelength
            waves.append((number * np.cos(heading), number * np.sin(heading), phase, amplitude))
        return waves

    def _hills(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        z = np.full(np.broadcast(x, y).shape, _BASE_HEIGHT_M)
        for kx, ky, phase, amplitude in self._waves:
            z += amplitude * np.sin(kx * x + ky * y + phase)
        return z

    def _pond(self, column: int, row: int) -> Pond:
        rng = draws.generator(self.seed, 2, column, row)
        x = column * QUARTER_M + rng.uniform(125, 150)
        y = row * QUARTER_M + rng.uniform(40, 60)
        radius = rng.uniform(16, 24)
        phases = (float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0, 2 * np.pi)))
        # The level lies under every part of the basin's rim, so water never stands above its shore.
        angle, ratio = np.meshgrid(np.linspace(0, 2 * np.pi, 48), np.linspace(0.8, 1.3 * _BASIN, 8))
        rim = self._hills(x + radius * ratio * np.cos(angle), y + radius * ratio * np.sin(angle))
        return Pond(float(x), float(y), float(radius), phases, float(rim.min()) - 0.5)

    def ponds(self, x0: float, y0: float, x1: float, y1: float) -> list[Pond]:
        """Ponds whose basin may touch the box (metres)."""
        columns = range(int(np.floor((x0 - 60) / QUARTER_M)), int(np.floor((x1 + 60) / QUARTER_M)) + 1)
        rows = range(int(np.floor((y0 - 60) / QUARTER_M)), int(np.floor((y1 + 60) / QUARTER_M)) + 1)
        found = (self._pond(column, row) for column in columns for row in rows)
        return [
            pond
            for pond in found
            if x0 - pond.reach <= pond.x <= x1 + pond.reach and y0 - pond.reach <= pond.y <= y1 + pond.reach
        ]

    def surface(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Height (…) float64 of ground or water at (x, y) (…), and whether it is water (…) bool."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        z = self._hills(x, y)
        water = np.zeros(z.shape, bool)
        if not z.size:
            return z, water
        for pond in self.ponds(x.min(), y.min(), x.max(), y.max()):
            near = (x - pond.x) ** 2 + (y - pond.y) ** 2 < pond.reach**2
            ratio = pond.shore_ratio(x[near], y[near])
            ramp = np.clip((ratio - 1) / (_BASIN - 1), 0, 1)
            shore = pond.level + _SHORE_RISE_M
            bank = shore + (z[near] - shore) * ramp * ramp * (3 - 2 * ramp)
            z[near] = np.where(ratio < 1, pond.level, bank)
            water[near] = ratio < 1
        return z, water

    def height(self, x: float, y: float) -> float:
        """Height in metres at one place."""
        return float(self.surface(np.array([x]), np.array([y]))[0][0])
