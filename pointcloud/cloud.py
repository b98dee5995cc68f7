"""A scan's points in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from pyproj import CRS

from pointcloud.errors import ScanError

ATTRIBUTES = ("intensity", "return_number", "number_of_returns", "red", "green", "blue", "classification")
"""The attribute names a cloud may carry, named as in the LAS specification (1.4 R16, table 7 ff.)."""


@dataclass(frozen=True)
class Cloud:
    """Points of one scan (P of them) in the scan's own CRS; it checks itself on creation.

    Attributes:
        xyz: (P, 3) float64, CRS units, never cast to float32 while absolute.
        attributes: name -> (P,) array; names from `ATTRIBUTES`. Colours are uint16 as in LAS.
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
            if name not in ATTRIBUTES:
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
