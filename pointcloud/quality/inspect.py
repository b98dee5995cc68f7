"""What a scan is before it is processed: its counts, density, CRS and classes, and sizes of blocks that suit it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pointcloud.cloud import Cloud, ScanHeader
from pointcloud.crs import metres_per_unit, name_of, unit_names
from pointcloud.errors import ScanError
from pointcloud.formats.columns import COLOURS, MAY_BE_UNFILLED, num_wrong_returns
from pointcloud.formats.given_crs import GivenCrs
from pointcloud.formats.reader import about_returns, in_crs, iterate_clouds, never_filled, read_header
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labels import PRESETS

_VOXELS_PER_TILE = 64  # along an edge: 4096 over level ground
_VOXELS_PER_HALO = 8  # along its width, as in the default `BlockConfig`
_VOXEL_SIZES_M = (
    0.02,
    0.025,
    0.04,
    0.05,
    0.1,
    0.2,
    0.25,
    0.5,
    1.0,
    2.0,
    2.5,
    5.0,
)  # round numbers to choose from
_SPARSEST = 0.01  # points per m²; 10 m from one to the next show nothing of a scene
_RASTER = 2048  # cells along the longer edge of a scan, for the ground it covers: 4 MB at most
_POINTS_PER_CELL = 9  # on average, so that a cell of covered ground is hardly ever empty

# ASPRS LAS 1.4 R16, table 17, in short.
_ASPRS = (
    "never classified", "unclassified", "ground", "low vegetation", "medium vegetation", "high vegetation",
    "building", "low noise", "reserved", "water", "rail", "road surface", "reserved", "wire guard",
    "wire conductor", "transmission tower", "wire connector", "bridge deck", "high noise", "overhead structure",
    "ignored ground", "snow", "temporal exclusion",
)  # fmt: skip


@dataclass(frozen=True)
class Inspection:
    """What was found out about one scan.

    Attributes:
        header: what the scan says of itself.
        num_points: all its points, also those that were not read.
        num_read: how many were read; fewer than all make `class_counts` a sample, the first ones of the file.
        extent_m: (x, y, z) metres.
        area_m2: of the ground it covers where that was found out, otherwise of its bounding box.
        is_covered: whether it was: all points were read, and the header's bounds say where to look.
        density: points per m² of that area; None where there is none.
        attributes: those of `cloud.ATTRIBUTES` that it carries and that are filled, as far as read.
        class_counts: class code -> points read, None where it has no classes.
        config: block sizes that suit its density; None where there is none or next to none.
        notes: the header's, and what was met while reading.
    """

    header: ScanHeader
    num_points: int
    num_read: int
    extent_m: tuple[float, float, float]
    area_m2: float
    is_covered: bool
    density: float | None
    attributes: tuple[str, ...]
    class_counts: dict[int, int] | None
    config: BlockConfig | None
    notes: tuple[str, ...]

    @property
    def is_sample(self) -> bool:
        """Whether only some of the points were read."""
        return self.num_read < self.num_points

    def class_name(self, code: int) -> str:
        """What a class code usually means in a scan of this format."""
        names = PRESETS["s3dis"].names if self.header.format.startswith("S3DIS") else _ASPRS
        return names[code] if code < len(names) else "reserved or user-defined"

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold."""
        header, crs = self.header, self.header.crs
        horizontal, vertical = unit_names(crs)
        return {
            "scan": header.uri,
            "format": header.format,
            "points": self.num_points,
            "points_read": self.num_read,
            "bounds": header.bounds.tolist() if header.bounds is not None else None,
            "extent_m": list(self.extent_m),
            "area_m2": self.area_m2,
            "area_is_covered_ground": self.is_covered,
            "density_per_m2": self.density,
            "crs": name_of(crs) if crs is not None else None,
            "unit": {"horizontal": horizontal, "vertical": vertical},
            "resolution": header.resolution.tolist() if header.resolution is not None else None,
            "attributes": list(self.attributes),
            "dimensions": list(header.dimensions),
            "classes": self.class_counts
            and [
                {"code": code, "name": self.class_name(code), "points": count}
                for code, count in self.class_counts.items()
            ],
            "block_config": asdict(self.config) if self.config else None,
            "notes": list(self.notes),
        }


def choose_config(density: float) -> BlockConfig:
    """Block sizes for a scan of so many points per m².

    The voxel is about the mean distance between neighbouring points, 1 / √density, as the nearest round number, so
    that little is thinned away and few voxels are empty; from 0.02 m, below which a scanner's noise begins, to 5 m.
    A tile is 64 voxels wide, so that a block over level ground has about 4096; the halo is an eighth of it. At 16
    points per m² these are the defaults of `BlockConfig`, at 2 cm nearly the blocks of 1 m that S3DIS is known for.
    """
    voxel = min(_VOXEL_SIZES_M, key=lambda size: abs(math.log(size * math.sqrt(density))))
    tile = round(voxel * _VOXELS_PER_TILE, 3)
    return BlockConfig(
        tile_size_m=tile, halo_m=round(voxel * _VOXELS_PER_HALO, 3), voxel_size_m=voxel,
        ground_window_m=max(BlockConfig.ground_window_m, tile),
    )  # fmt: skip


def inspect_scan(uri: str, read: bool = False, given: GivenCrs | None = None, name: str = "") -> Inspection:
    """Look at a scan: at its header alone where that says enough, with its first points as a sample of its classes.

    Args:
        uri: the scan.
        read: read all its points, which also finds out whether it can be read at all. Scans whose header has no
            bounds are read in any case.
        given: CRSs and units in place of what files say.
        name: of the scan, as `given` knows it.

    Raises:
        ScanError: a scan that cannot be used: unreadable, without points, in degrees, with NaN coordinates.
        StorageError: nothing there.
    """
    header = read_header(uri)
    crs = given.of(name or uri, header.crs) if given is not None else None
    if crs is not None:
        header = in_crs(header, crs)
    try:
        metres = metres_per_unit(header.crs)
    except ScanError as error:
        raise ScanError(f"scan {uri!r}: {error}") from error
    whole = read or header.bounds is None
    sums = _Sums(header, whole)
    notes: list[str] = []
    for cloud in iterate_clouds(uri, report=notes.append, crs=crs):
        sums.add(cloud)
        if not whole:
            break
    low, high = sums.corners if whole or header.bounds is None else header.bounds
    extent = (high - low) * np.array([metres[0], metres[0], metres[1]])
    area = float(extent[0] * extent[1]) if sums.ground is None else sums.ground.area() * metres[0] ** 2
    num_points = sums.num_read if whole or header.num_points is None else header.num_points
    density = num_points / area if area > 0 else None
    config = choose_config(density) if density and density >= _SPARSEST else None
    wrong_returns = sums.num_wrong_returns / max(sums.num_read, 1)
    unfilled = never_filled(sums.largest, wrong_returns)
    return Inspection(
        header=header,
        num_points=num_points,
        num_read=sums.num_read,
        extent_m=(float(extent[0]), float(extent[1]), float(extent[2])),
        area_m2=area,
        is_covered=sums.ground is not None,
        density=density,
        attributes=tuple(attribute for attribute in header.attributes if attribute not in unfilled),
        class_counts=sums.class_counts(),
        config=config,
        notes=(
            *dict.fromkeys([*header.notes, *notes]),
            *_further_notes(unfilled, config),
            *about_returns(sums.largest, wrong_returns),
        ),
    )


def _further_notes(unfilled: frozenset[str], config: BlockConfig | None) -> Iterator[str]:
    """Sentences on a scan besides those of its reader."""
    if config is None:
        yield "its points are too few or too far apart to choose block sizes; a few stray points can be the reason."
    if not unfilled.isdisjoint(COLOURS):
        yield "its colours are all 0: they count as absent."


class _Sums:
    """What adds up over the chunks of a scan.

    Attributes:
        corners: (2, 3) smallest and largest coordinates of the points read, CRS units.
        num_read: number of points read.
        num_wrong_returns: how many of them have return numbers that cannot be.
        largest: attribute -> its largest value, of those that may be there and never filled.
        ground: that they cover; None where only a sample is read, or the header has no bounds.
    """

    def __init__(self, header: ScanHeader, whole: bool) -> None:
        self.corners = np.array([np.full(3, np.inf), np.full(3, -np.inf)])
        self.num_read = self.num_wrong_returns = 0
        self.largest: dict[str, int] = {}
        self.ground: _Ground | None = None
        if whole and header.bounds is not None and header.num_points:
            self.ground = _Ground(header.bounds, header.num_points)
        self._codes = np.zeros(256, np.int64)

    def add(self, cloud: Cloud) -> None:
        """Add the points of a chunk."""
        self.num_read += len(cloud)
        self.num_wrong_returns += num_wrong_returns(cloud.attributes)
        low, high = cloud.corners()
        self.corners = np.array([np.minimum(self.corners[0], low), np.maximum(self.corners[1], high)])
        if "classification" in cloud.attributes:
            self._codes += np.bincount(cloud.attributes["classification"], minlength=256)
        for name in MAY_BE_UNFILLED:
            if name in cloud.attributes:
                self.largest[name] = max(self.largest.get(name, 0), int(cloud.attributes[name].max()))
        if self.ground is not None:
            self.ground.add(cloud.xyz)

    def class_counts(self) -> dict[int, int] | None:
        """Class code -> points read; None where there are no classes."""
        codes = np.flatnonzero(self._codes).tolist()
        return {code: int(self._codes[code]) for code in codes} or None


class _Ground:
    """The ground that points cover: occupied cells of a raster over the header's bounds, of bounded size."""

    def __init__(self, bounds: np.ndarray, num_points: int) -> None:
        self._low, extent = bounds[0, :2], bounds[1, :2] - bounds[0, :2]
        usual = math.sqrt(_POINTS_PER_CELL * float(extent.prod()) / num_points)
        self._cell = max(usual, float(extent.max()) / _RASTER) or 1.0
        self._occupied = np.zeros((np.floor(extent / self._cell) + 1).astype(int), bool)
        self._extent = extent

    def add(self, xyz: np.ndarray) -> None:
        cell = np.floor((xyz[:, :2] - self._low) / self._cell)
        cell = np.clip(cell, 0, np.array(self._occupied.shape) - 1).astype(int)
        self._occupied[cell[:, 0], cell[:, 1]] = True

    def area(self) -> float:
        """In square CRS units; a cell at the edge of the bounds counts with its part inside of them."""
        widths = [
            np.minimum(self._cell, e - self._cell * np.arange(n))
            for e, n in zip(self._extent, self._occupied.shape, strict=True)
        ]
        return float(widths[0] @ self._occupied @ widths[1])
