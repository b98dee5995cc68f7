"""The simulated survey: seeded airborne LiDAR, tile by tile. SIMULATED data, with exact labels.

The scene is a pure function of (seed, position) and the flight one of (seed, origin, density), so a survey
made as one tile holds the same points as the same survey made as n × m tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pyproj import CRS
from pyproj.exceptions import CRSError

from pointcloud.cloud import Cloud
from pointcloud.errors import PointloomError
from pointcloud.simulate import flight
from pointcloud.simulate.returns import strip_points
from pointcloud.simulate.terrain import Terrain

MAX_HEIGHT_M = 62.0
"""Nothing that gives a return is higher over ground."""


@dataclass(frozen=True)
class SurveyConfig:
    """What to simulate.

    Attributes:
        seed: of the landscape and of all chance; 0 or more.
        tile_size_m: side of a tile, a multiple of `scale`, at least 10 m.
        tiles: number of tiles eastwards and northwards.
        points_per_m2: pulses per square metre of ground, overlap of swaths included. Trees add returns to
            pulses and water takes them away, so files hold about 10 % more points than this.
        origin: easting and northing of the south-west corner, metres.
        epsg: a projected CRS in metres; the default is RGF93 / Lambert-93, metropolitan France.
        scale: metres per unit of the stored integer coordinates.
        noise_fraction: share of pulses that give a noise point (class 7 or 18) instead of what they should.

    Raises:
        PointloomError: a setting out of its range, or a CRS that is unknown, geographic or not in metres.
    """

    seed: int = 0
    tile_size_m: float = 100.0
    tiles: tuple[int, int] = (2, 2)
    points_per_m2: float = 8.0
    origin: tuple[float, float] = (652_000.0, 6_862_000.0)
    epsg: int = 2154
    scale: float = 0.01
    noise_fraction: float = 0.0

    def __post_init__(self) -> None:
        size = max(self.tiles) * self.tile_size_m
        units = self.tile_size_m / self.scale if self.scale > 0 else np.nan
        checks = (
            (0 <= self.seed < 2**32, "seed", self.seed, "a whole number from 0 to 2**32 - 1"),
            (0.0001 <= self.scale <= 0.1, "scale", self.scale, "0.0001 to 0.1 m"),
            (self.tile_size_m >= 10, "tile_size_m", self.tile_size_m, "at least 10 m"),
            (abs(units - round(units)) < 1e-6 if np.isfinite(units) else False,
             "tile_size_m", self.tile_size_m, f"a multiple of scale, {self.scale} m"),
            (min(self.tiles) >= 1, "tiles", self.tiles, "at least (1, 1)"),
            (size <= flight.MAX_LENGTH_M, "tiles", self.tiles, f"at most {flight.MAX_LENGTH_M:.0f} m a side"),
            (0 < self.points_per_m2 <= 200, "points_per_m2", self.points_per_m2, "more than 0, at most 200"),
            (bool(np.isfinite(self.origin).all()), "origin", self.origin, "two finite numbers in metres"),
            (0 <= self.noise_fraction <= 0.5, "noise_fraction", self.noise_fraction, "0 to 0.5"),
        )  # fmt: skip
        for good, name, value, expected in checks:
            if not good:
                raise PointloomError(
                    f"simulated survey: {name} is {value!r}, expected {expected}; change it."
                )
        _ = self.crs

    @property
    def crs(self) -> CRS:
        """The CRS of the survey.

        Raises:
            PointloomError: there is no such CRS, or it is not projected in metres.
        """
        try:
            crs = CRS.from_epsg(self.epsg)
        except CRSError as error:
            raise PointloomError(
                f"simulated survey: EPSG:{self.epsg} is not a known CRS; name a projected one in metres."
            ) from error
        if not crs.is_projected or any(axis.unit_name != "metre" for axis in crs.axis_info):
            raise PointloomError(
                f"simulated survey: EPSG:{self.epsg} ({crs.name}) is not projected in metres; name one that is."
            )
        return crs

    @property
    def flight(self) -> flight.Flight:
        """The flight that gives the survey its density."""
        # Points per m² of ground are more than per m² of one swath, by the overlap.
        density = self.points_per_m2 * flight.LINE_SPACING_M / flight.SWATH_M
        return flight.Flight(Terrain(self.seed), self.origin, float(density**-0.5))

    @property
    def offsets(self) -> tuple[float, float, float]:
        """Of the stored integer coordinates: coordinate = integer · scale + offset."""
        return (*self.origin, 0.0)


def simulate_chunks(config: SurveyConfig, i: int, j: int) -> Iterator[dict[str, np.ndarray]]:
    """The points of tile (i, j) in chunks of at most some 300 000, in order of time; memory stays bounded.

    Args:
        i, j: tile index eastwards and northwards, from (0, 0) at the origin. Edges are half-open: a point
            exactly on an edge is in the tile east or north of it.

    Yields:
        LAS dimensions by their laspy names, arrays (P,): X, Y, Z int32 (see `SurveyConfig.offsets`),
        intensity, return_number, number_of_returns, scan_direction_flag, edge_of_flight_line,
        classification, scan_angle, point_source_id, gps_time.

    Raises:
        PointloomError: the survey has no such tile.
    """
    if not (0 <= i < config.tiles[0] and 0 <= j < config.tiles[1]):
        raise PointloomError(
            f"simulated survey: there is no tile ({i}, {j}) in {config.tiles[0]} × {config.tiles[1]} tiles; "
            "count from (0, 0)."
        )
    plan = config.flight
    size = config.tile_size_m
    side = round(size / config.scale)
    reach = flight.MAX_SLOPE * MAX_HEIGHT_M
    for strip in plan.strips(i * size - reach, j * size, (i + 1) * size + reach, (j + 1) * size):
        points = strip_points(plan, strip, config.noise_fraction)
        x, y, z = (points.pop(name) for name in ("x", "y", "z"))
        # In whole units of the stored grid edges are exact, and rounding moves no point out of all tiles.
        column = np.rint((x - config.origin[0]) / config.scale).astype(np.int32)
        row = np.rint((y - config.origin[1]) / config.scale).astype(np.int32)
        inside = np.flatnonzero((column // side == i) & (row // side == j))
        chunk = {name: values[inside] for name, values in points.items()}
        height = np.rint(z[inside] / config.scale).astype(np.int32)
        yield {"X": column[inside], "Y": row[inside], "Z": height, **chunk}


def simulate_tile(config: SurveyConfig, i: int, j: int) -> dict[str, np.ndarray]:
    """All points of tile (i, j) at once; arguments, dimensions and errors as in `simulate_chunks`."""
    chunks = list(simulate_chunks(config, i, j))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def simulate_cloud(config: SurveyConfig, i: int = 0, j: int = 0) -> Cloud:
    """Tile (i, j) as a cloud: the points, coordinates and attributes a reader finds in the written file."""
    points = simulate_tile(config, i, j)
    xyz = np.stack(
        [points[axis] * config.scale + offset for axis, offset in zip("XYZ", config.offsets, strict=True)], 1
    )
    names = ("intensity", "return_number", "number_of_returns", "classification")
    return Cloud(xyz, {name: points[name] for name in names}, config.crs)
