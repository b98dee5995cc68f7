"""Scans with noise points added, and where such points lie."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np


def below_ground(path: Path, depth_m: float, num: int = 1, seed: int = 0) -> np.ndarray:
    """(num, 3) places below the lowest points of a LAS scan near them, spread over the scan."""
    xyz = laspy.read(path).xyz
    rng = np.random.default_rng(seed)
    chosen = xyz[rng.choice(len(xyz), num, replace=False)]
    for place in chosen:
        near = np.hypot(*(xyz[:, :2] - place[:2]).T) < 3
        place[2] = xyz[near, 2].min() - depth_m
    return chosen


def with_points(
    path: Path, out: Path, xyz: np.ndarray, code: int = 1, withheld: bool = False, first: bool = False
) -> Path:
    """A copy of a LAS scan with points (n, 3) added after its own, or before them; its CRS and offsets are kept."""
    las = laspy.read(path)
    record = laspy.ScaleAwarePointRecord.zeros(len(xyz), header=las.header)
    record.array[:] = las.points.array[:1]
    record.x, record.y, record.z = xyz.T
    record.classification = np.full(len(xyz), code, np.uint8)
    record.withheld = np.full(len(xyz), withheld, np.uint8)
    record.synthetic = np.zeros(len(xyz), np.uint8)
    pieces = [record.array, las.points.array] if first else [las.points.array, record.array]
    joined = laspy.ScaleAwarePointRecord.zeros(len(las.points) + len(xyz), header=las.header)
    joined.array[:] = np.concatenate(pieces)
    copy = laspy.LasData(las.header, joined)
    copy.update_header()
    copy.write(out)
    return out
