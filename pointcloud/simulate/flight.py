"""The flight: parallel lines northwards and back, an oscillating mirror, one pulse after the other.

Everything is counted from the survey's origin: flight lines eastwards, scan lines northwards, pulses across.
A pulse is known by those three integers; its place, time and chance follow from them alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pointcloud.simulate import draws
from pointcloud.simulate.rays import Pulses
from pointcloud.simulate.terrain import Terrain

LINE_SPACING_M = 120.0
SWATH_M = 160.0
"""A quarter of each swath is flown twice."""
FLYING_HEIGHT_M = 450.0
MAX_LENGTH_M = 100_000.0
MAX_LINES = 1_000

_SPEED_M_S = 60.0
_START_S = 3.0e8  # adjusted standard GPS time (GPS seconds minus 1e9), some day in March 2021
_LINE_PERIOD_S = 2_000.0  # flying `MAX_LENGTH_M` and turning
_ROLL_M = 1.2
_JITTER = 0.35  # of the pulse spacing
MAX_SLOPE = (SWATH_M / 2 + _ROLL_M + 1.0) / FLYING_HEIGHT_M
_CHUNK = 150_000


@dataclass(frozen=True)
class Strip:
    """Pulses of some scan lines of one flight line.

    Attributes:
        line: number of the flight line, from 0.
        pulses: see `Pulses`; arrays (rows, columns).
        order: (rows, columns) int64, the pulse's number in time along its flight line.
        edge: (rows, columns) bool, last pulse before the mirror turns.
        rightwards: (rows, 1) bool, the mirror swings to the right of the direction of flight.
        water: (rows, columns) bool, the pulse ends on water unless something stands above.
    """

    line: int
    pulses: Pulses
    order: np.ndarray
    edge: np.ndarray
    rightwards: np.ndarray
    water: np.ndarray


@dataclass(frozen=True)
class Flight:
    """A flight over a terrain from an origin (absolute metres), `spacing` metres between pulses both ways."""

    terrain: Terrain
    origin: tuple[float, float]
    spacing: float

    @property
    def pulses_per_scan(self) -> int:
        """Pulses from one edge of the swath to the other."""
        return int(np.ceil(SWATH_M / self.spacing))

    def strips(self, x0: float, y0: float, x1: float, y1: float) -> Iterator[Strip]:
        """All pulses that meet the ground in the box (metres from the origin), and a few more, in time order.

        A strip holds about 150 000 pulses at most, whatever the size of the box.
        """
        reach = SWATH_M / 2 + _ROLL_M + self.spacing
        first = max(0, int(np.ceil((x0 - reach) / LINE_SPACING_M)))
        last = int(np.floor((x1 + reach) / LINE_SPACING_M))
        for line in range(first, last + 1):
            west = line * LINE_SPACING_M - SWATH_M / 2
            margin = _ROLL_M + self.spacing
            start = max(0, int(np.floor((x0 - margin - west) / self.spacing)))
            stop = min(self.pulses_per_scan, int(np.ceil((x1 + margin - west) / self.spacing)) + 1)
            if stop <= start:
                continue
            columns = np.arange(start, stop)
            low = int(np.floor(y0 / self.spacing)) - 2
            high = int(np.ceil(y1 / self.spacing)) + 2
            step = max(1, _CHUNK // len(columns))
            starts = list(range(low, high, step))
            for row in starts if _northwards(line) else reversed(starts):
                yield self._strip(line, np.arange(row, min(row + step, high)), columns)

    def _strip(self, line: int, rows: np.ndarray, columns: np.ndarray) -> Strip:
        across = self.pulses_per_scan
        row, column = rows[:, None], columns[None, :]
        eastwards = row % 2 == 0
        # Place in the swing of the mirror when flying north; flying south, time runs the other way.
        swing = np.where(eastwards, column, across - 1 - column)
        keys = draws.extend(draws.extend(draws.key(self.terrain.seed, 5, line), row), column)
        dx, dy = draws.uniform_pair(keys, 1)
        # The aircraft rolls slowly, so swaths have wavy edges.
        roll = _ROLL_M * np.sin(row * (self.spacing / 35.0) + 1.7 * line)
        offset = (column + 0.5 + _JITTER * (dx - 0.5)) * self.spacing - SWATH_M / 2 + roll
        x = self.origin[0] + line * LINE_SPACING_M + offset
        y = self.origin[1] + (row + (swing + 0.5) / across + _JITTER * (dy - 0.5)) * self.spacing
        z, water = self.terrain.surface(x, y)
        if _northwards(line):
            order, edge, rightwards = row * across + swing, swing == across - 1, eastwards
        else:
            order = (int(MAX_LENGTH_M / self.spacing) - row) * across - 1 - swing
            edge, rightwards = swing == 0, eastwards
        pulses = Pulses(x, y, z, offset / FLYING_HEIGHT_M, keys)
        return Strip(line, pulses, order, edge, rightwards, water)

    def gps_time(self, line: int, order: np.ndarray) -> np.ndarray:
        """(…) float64 seconds, adjusted standard GPS time, of the pulses with these numbers."""
        tick = self.spacing / (_SPEED_M_S * self.pulses_per_scan)
        return _START_S + line * _LINE_PERIOD_S + order * tick

    def scan_angle(self, line: int, slope: np.ndarray) -> np.ndarray:
        """(…) int16, multiples of 0.006°, positive to the right of the flight (LAS 1.4 R16, table 15)."""
        angle = np.degrees(np.arctan(slope)) / 0.006
        return np.rint(angle if _northwards(line) else -angle).astype(np.int16)


def _northwards(line: int) -> bool:
    return line % 2 == 0
