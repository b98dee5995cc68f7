"""A scan's points in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from pyproj import CRS

from pointcloud.errors import ScanError

ATTRIBUTES = ("intensity", "return_number", "number_of_returns", "red", "green", "blue", "classification")
"""The attribute names a cloud may carry, named as in the LAS specification (1.4 R16, table 7 ff.)."""


WITHHELD = "withheld"
"""The flag of points that are delivered but not to be used (LAS 1.4 R16, tables 8 and 17)."""


@dataclass(frozen=True)
class Cloud:
    """Points of one scan (P of them) in the scan's own CRS; it checks itself on creation.

    Attributes:
        xyz: (P, 3) float64, CRS units, never cast to float32 while absolute.
        attributes: name -> (P,) array; names from `ATTRIBUTES`, and `WITHHELD` where a point has that flag. Colours are
            uint16 as in LAS.
        crs: the CRS, or None where the scan names none (units are then taken as metres).

    Raises:
        ScanError: arrays of different lengths, NaN or infinite coordinates, an unknown attribute name.
    """

    xyz: np.ndarray
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    crs: CRS | None = None

    def __post_init__(self) -> None:
        if self.xyz.ndim != 2 or self.xyz.shape[1] != 3 or self.xyz.dtype != np.float64:
            raise ScanError(f"xyz must be (P, 3) float64, found {self.xyz.shape} {self.xyz.dtype}.")
        for name, values in self.attributes.items():
            if name not in ATTRIBUTES and name != WITHHELD:
                raise ScanError(f"unknown attribute {name!r}; a cloud may carry {', '.join(ATTRIBUTES)}.")
            if values.shape != (len(self),):
                raise ScanError(f"attribute {name!r} has shape {values.shape}, expected ({len(self)},).")
        # NaN and infinity show in the smallest and largest coordinates.
        if not np.isfinite(self.corners()).all():
            bad = int(np.count_nonzero(~np.isfinite(self.xyz).all(axis=1)))
            raise ScanError(f"{bad} of {len(self)} points have NaN or infinite coordinates.")

    def __len__(self) -> int:
        return len(self.xyz)

    def corners(self) -> np.ndarray:
        """(2, 3) float64, smallest and largest coordinates; (0, 3) of no points."""
        return self._corners

    @cached_property
    def _corners(self) -> np.ndarray:
        if not len(self):
            return np.empty((0, 3))
        return np.array([[axis.min() for axis in self.xyz.T], [axis.max() for axis in self.xyz.T]])

    def __getitem__(self, index: np.ndarray | slice) -> Cloud:
        """The points chosen by a mask, index array or slice, attributes alongside."""
        xyz = np.array([column[index] for column in self.xyz.T]).T
        return Cloud(xyz, {name: values[index] for name, values in self.attributes.items()}, self.crs)


CHUNK_POINTS = 250_000
"""The most points of a scan that are decoded at once."""


Columns = tuple[np.ndarray, dict[str, np.ndarray]]
"""Some points as a format's reader gives them: xyz (n, 3) float64 in CRS units, attributes name -> (n,)."""


@dataclass(frozen=True)
class ScanHeader:
    """What a file says of itself. It may be wrong; the reader notices that only while it decodes the points.

    Attributes:
        uri: the scan.
        format: for people, such as "LAZ 1.4, point format 6".
        num_points: None where only reading tells (rooms).
        bounds: (2, 3) float64, lowest and highest coordinates in CRS units; None where the format has none.
        crs: None where the scan names none, or one that PROJ does not know.
        attributes: those of `cloud.ATTRIBUTES` that the scan carries. Colours that were never filled count.
        resolution: (3,) float64, the scan's own step of coordinates in CRS units; None for floats.
        dimensions: everything stored per point, by the file's own names.
        notes: what was mended, left out or assumed, one sentence each.
        crs_notes: the same about the CRS and its units.
    """

    uri: str
    format: str
    num_points: int | None
    bounds: np.ndarray | None
    crs: CRS | None
    attributes: tuple[str, ...]
    resolution: np.ndarray | None
    dimensions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    crs_notes: tuple[str, ...] = ()
