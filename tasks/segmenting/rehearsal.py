"""A small scan to rehearse with: it has every attribute that a network may ask for."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np

_POINTS, _SIDE_M = 9_000, 30.0


def write_scan(folder: Path) -> Path:
    """Write a LAS file of points at random in a flat box of 30 m × 30 m × 3 m, with returns and colours."""
    draws = np.random.default_rng(0)
    las = laspy.LasData(laspy.LasHeader(point_format=7, version="1.4"))
    las.header.scales = np.full(3, 0.001)
    las.xyz = draws.uniform(0, (_SIDE_M, _SIDE_M, 3.0), (_POINTS, 3))
    las.classification = np.full(_POINTS, 1, np.uint8)
    las.number_of_returns = draws.integers(1, 3, _POINTS)
    las.return_number = np.ones(_POINTS, np.uint8)
    for name in ("intensity", "red", "green", "blue"):
        las[name] = draws.integers(1, 1 << 16, _POINTS).astype(np.uint16)
    path = folder / "rehearsal.las"
    las.write(str(path))
    return path
