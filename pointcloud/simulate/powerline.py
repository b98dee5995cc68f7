"""The power lines of the simulated landscape: lattice pylons and three sagging wires between each two.

Lines run straight through the whole landscape, one every `terrain.QUARTER_M` metres of northing, and cross
flight lines at an angle, so that scan lines never run along a wire.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pointcloud.simulate import draws
from pointcloud.simulate.rays import Pulses, through_convex
from pointcloud.simulate.terrain import QUARTER_M, Terrain

CORRIDOR_M = 12.0
"""Nothing tall stands or grows closer than this to the line's axis."""
PYLON_HEIGHT_M = 24.0

_NORTHING_PER_EASTING = 0.5
_NORTHING_M = 75.0  # where the line crosses the corner of a quarter
_SPAN_M = 80.0
_SAG_M = 2.2
_ARMS = ((0.0, 22.5), (-3.6, 19.0), (3.6, 19.0))  # of each wire: metres right of the axis, metres over ground
_SEEN_M = 0.16  # half the laser's footprint: a wire further from the pulse's axis gives no return

_LENGTH = float(np.hypot(1.0, _NORTHING_PER_EASTING))
_ALONG = (1 / _LENGTH, _NORTHING_PER_EASTING / _LENGTH)


@dataclass(frozen=True)
class PowerLine:
    """One line over one terrain; `number` counts the lines northwards."""

    terrain: Terrain
    number: int

    def across(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Signed distance (…) in metres from the axis, positive north of it."""
        northing = _NORTHING_M + self.number * QUARTER_M
        return (y - northing - _NORTHING_PER_EASTING * x) / _LENGTH

    def along(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distance (…) in metres along the axis; pylons stand at its multiples of the span."""
        northing = _NORTHING_M + self.number * QUARTER_M
        return (x + _NORTHING_PER_EASTING * (y - northing)) / _LENGTH

    def pylon(self, index: int) -> tuple[float, float, float]:
        """Foot (x, y, z) of the pylon, absolute metres."""
        x = index * _SPAN_M * _ALONG[0]
        y = index * _SPAN_M * _ALONG[1] + _NORTHING_M + self.number * QUARTER_M
        return x, y, self.terrain.height(x, y)

    def wire_height(self, feet: dict[int, float], along: np.ndarray, over_ground: float) -> np.ndarray:
        """Absolute height (…) of a wire at `along` (…): a catenary between two pylons.

        Args:
            feet: height of each pylon's foot, by its index.
            over_ground: height of the wire at the pylon over its foot, metres.
        """
        index = np.floor(along / _SPAN_M).astype(np.int64)
        first = min(feet)
        table = np.array([feet[i] for i in sorted(feet)])
        share = along / _SPAN_M - index
        left, right = table[index - first], table[index - first + 1]
        stiffness = _SPAN_M**2 / (8 * _SAG_M)
        hang = np.cosh((share - 0.5) * _SPAN_M / stiffness) - np.cosh(0.5 * _SPAN_M / stiffness)
        return left + (right - left) * share + over_ground + stiffness * hang


def lines_near(terrain: Terrain, x0: float, y0: float, x1: float, y1: float) -> list[PowerLine]:
    """The lines that may cross the box (metres), southernmost first."""
    low = y0 - 20 - _NORTHING_M - _NORTHING_PER_EASTING * x1
    high = y1 + 20 - _NORTHING_M - _NORTHING_PER_EASTING * x0
    numbers = range(int(np.ceil(low / QUARTER_M)), int(np.floor(high / QUARTER_M)) + 1)
    return [PowerLine(terrain, number) for number in numbers]


def tower_hits(line: PowerLine, pulses: Pulses) -> list[tuple[tuple[slice, slice], np.ndarray, np.ndarray]]:
    """Where pulses meet pylons: for each pylon in reach its window, hit (…) bool and height (…) in metres.

    Steel lattice is mostly air: only some of the pulses through its outline give a return.
    """
    hits = []
    for index in _pylons(line, pulses):
        foot = line.pylon(index)
        window = pulses.window(foot[0], foot[1], 5.0, PYLON_HEIGHT_M + 2)
        near = pulses[window]
        if not near.x.size:
            continue
        top = np.full(near.x.shape, -np.inf)
        for planes in _pylon_solids():
            enter, leave = through_convex(near, planes, foot)
            top = np.where(enter > leave, np.maximum(top, enter), top)
        # The entry is on the outline; the return comes from a bar somewhere behind it.
        kept = (top > near.z + 0.2) & (draws.uniform(near.keys, 30) < 0.6)
        hits.append((window, kept, top))
    return hits


def wire_hits(line: PowerLine, pulses: Pulses) -> list[tuple[np.ndarray, np.ndarray]]:
    """Where pulses meet wires: for each wire the flat pulse index (R,) int64 and height (R,) in metres."""
    feet = {index: line.pylon(index)[2] for index in _pylons(line, pulses)}
    reach = 5.0 + float(np.abs(pulses.slope).max()) * (PYLON_HEIGHT_M + 12)
    near = np.flatnonzero((np.abs(line.across(pulses.x, pulses.y)) < reach).ravel())
    if not len(near):
        return []
    x, y, z, slope, keys = (
        a.ravel()[near] for a in (pulses.x, pulses.y, pulses.z, pulses.slope, pulses.keys)
    )
    hits = []
    for wire, (right, over_ground) in enumerate(_ARMS):
        height = z + over_ground
        # The pulse leans and the wire sags, both a little: a few steps reach the fixed point, their crossing.
        for _ in range(4):
            height = line.wire_height(feet, line.along(x - slope * (height - z), y), over_ground)
        miss = np.abs(line.across(x - slope * (height - z), y) - right)
        seen = (miss < _SEEN_M) & (draws.uniform(keys, 31 + wire) < 0.85) & (height > z + 2)
        hits.append((near[seen], height[seen]))
    return hits


def _pylons(line: PowerLine, pulses: Pulses) -> range:
    """Pylons of all spans that the pulses' box touches, one more at either end for the pulses' lean."""
    west, east = float(pulses.x.min()), float(pulses.x.max())
    south, north = float(pulses.y.min()), float(pulses.y.max())
    low = (west + _NORTHING_PER_EASTING * (south - _NORTHING_M - line.number * QUARTER_M)) / _LENGTH
    high = (east + _NORTHING_PER_EASTING * (north - _NORTHING_M - line.number * QUARTER_M)) / _LENGTH
    return range(int(np.floor(low / _SPAN_M)) - 1, int(np.floor(high / _SPAN_M)) + 3)


def _pylon_solids() -> list[np.ndarray]:
    """The tapering body and the two cross-arms as half-spaces (see `rays.through_convex`)."""
    (ux, uy), (vx, vy) = _ALONG, (-_ALONG[1], _ALONG[0])
    taper = 1.3 / PYLON_HEIGHT_M
    sides = ((ux, uy), (-ux, -uy), (vx, vy), (-vx, -vy))
    body = [(nx, ny, taper, 1.5) for nx, ny in sides] + [(0.0, 0.0, 1.0, PYLON_HEIGHT_M)]
    solids = [np.array(body)]
    for half_length, height in ((1.2, 22.5), (4.0, 19.0)):
        arm = [(ux, uy, 0.0, 0.25), (-ux, -uy, 0.0, 0.25), (vx, vy, 0.0, half_length)]
        arm += [(-vx, -vy, 0.0, half_length), (0.0, 0.0, 1.0, height + 0.2), (0.0, 0.0, -1.0, -height + 0.2)]
        solids.append(np.array(arm))
    return solids
