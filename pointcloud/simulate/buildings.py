"""Houses and halls of the simulated landscape: convex solids with walls and a flat, gabled or hipped roof."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pointcloud.simulate.rays import Pulses, through_convex


@dataclass(frozen=True)
class Building:
    """A rectangular building; all lengths in metres.

    Attributes:
        x, y, base: centre of the floor, absolute.
        angle: of the long side from east, radians.
        half_length, half_width: of the rectangle.
        eaves: height of the walls over the base.
        rise: height of the ridge over the eaves; not used by a flat roof.
        roof: its form.
        brightness: intensity of the roof's returns, LAS counts.
    """

    x: float
    y: float
    base: float
    angle: float
    half_length: float
    half_width: float
    eaves: float
    rise: float
    roof: Literal["flat", "gabled", "hipped"]
    brightness: float

    @property
    def radius(self) -> float:
        """Of the circle around the floor plan."""
        return float(np.hypot(self.half_length, self.half_width))

    @property
    def height(self) -> float:
        """Of the highest point over the base."""
        return self.eaves + (0.0 if self.roof == "flat" else self.rise)

    def planes(self) -> np.ndarray:
        """(K, 4) float64 half-spaces n · (p - centre) <= d; the building is inside them all (see `rays`)."""
        pitch = self.rise / self.half_width
        rows = [
            (1.0, 0.0, 0.0, self.half_length),
            (-1.0, 0.0, 0.0, self.half_length),
            (0.0, 1.0, 0.0, self.half_width),
            (0.0, -1.0, 0.0, self.half_width),
        ]
        if self.roof == "flat":
            rows.append((0.0, 0.0, 1.0, self.eaves))
        else:
            ridge = self.eaves + self.rise
            rows += [(0.0, pitch, 1.0, ridge), (0.0, -pitch, 1.0, ridge)]
        if self.roof == "hipped":
            hip = self.eaves + pitch * self.half_length
            rows += [(pitch, 0.0, 1.0, hip), (-pitch, 0.0, 1.0, hip)]
        local = np.array(rows)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turned = local.copy()
        turned[:, 0] = cos * local[:, 0] - sin * local[:, 1]
        turned[:, 1] = sin * local[:, 0] + cos * local[:, 1]
        return turned


def hit(building: Building, pulses: Pulses) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where pulses meet the building from above or from the side.

    Returns:
        Hit (…) bool, height (…) float64 in metres of the hit, intensity (…) float64. Walls are a little
        darker than the roof. Where there is no hit, the height and the intensity mean nothing.
    """
    centre = (building.x, building.y, building.base)
    enter, leave = through_convex(pulses, building.planes(), centre)
    is_wall = enter < building.base + building.eaves - 0.02
    return enter > leave, enter, np.where(is_wall, 0.8, 1.0) * building.brightness
