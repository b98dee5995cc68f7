"""What is known of a scan before its points are decoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pyproj import CRS

CHUNK_POINTS = 250_000
"""The most points of a scan that are decoded at once."""

Columns = tuple[np.ndarray, dict[str, np.ndarray]]
"""Some points as a format's reader gives them: xyz (n, 3) float64 in CRS units, attributes name -> (n,)."""


@dataclass(frozen=True)
class ScanHeader:
    """What a file says of itself; it may lie, as the reader finds out only while it decodes the points.

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
