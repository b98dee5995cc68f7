"""Whether the bounds in a LAS header can be those of the points: some writers leave them 0, or what they were before.

A look at a few points tells, without a decoder: those of LAS lie at known places, and a chunk of LAZ begins with its
first point as it is (LASzip specification).
"""

from __future__ import annotations

import struct
from typing import Any

import laspy
import lazrs
import numpy as np

_SAMPLES = 4
_XYZ_BYTES = 12
_TABLE_OFFSET_BYTES = 8  # before the first chunk
_TOLERANCE = 0.01  # of the extent: writers round bounds, and crop points without correcting them
_TOLERANCE_UNITS = 1.0
_POINTWISE = 1  # LASzip's number of that compressor
_COORDINATE_UNITS = 1 << 31  # coordinates are whole numbers of 32 bits, times a scale, from an offset
_SPARSEST_AREA = 1e5  # square CRS units a point


def true_bounds(stream: Any, header: laspy.LasHeader) -> np.ndarray | None:
    """The bounds in a header, (2, 3) float64 in CRS units; None where they cannot be those of the points.

    Args:
        stream: the file, open for reading bytes; its position is kept.
    """
    bounds = np.array([header.mins, header.maxs], np.float64)
    if not header.point_count:
        return bounds if np.isfinite(bounds).all() else None
    if not is_box(bounds) or not _can_be_stored(bounds, header):
        return None
    return bounds if distance_beyond(bounds, sample(stream, header)) == 0 else None


def are_wide(bounds: np.ndarray, num_points: int) -> bool:
    """Whether bounds (2, 3) are so wide for their points that they may be made up; all points tell."""
    return bool(np.prod(bounds[1, :2] - bounds[0, :2]) > _SPARSEST_AREA * num_points)


def are_alike(bounds: np.ndarray, others: np.ndarray) -> bool:
    """Whether bounds (2, 3) differ by no more than rounding explains."""
    return distance_beyond(bounds, others) == 0 and distance_beyond(others, bounds) == 0


def _can_be_stored(bounds: np.ndarray, header: laspy.LasHeader) -> bool:
    reach = _COORDINATE_UNITS * np.abs(header.scales) + _TOLERANCE_UNITS
    return bool((np.abs(bounds - header.offsets) <= reach).all())


def is_pointwise(header: laspy.LasHeader) -> bool:
    """Whether compressed points are one stream without chunks, as LASzip wrote them before version 2.0."""
    record = header.vlrs[header.vlrs.index("LasZipVlr")].record_data
    return bool(struct.unpack_from("<H", record)[0] == _POINTWISE)


def is_box(bounds: np.ndarray) -> bool:
    """Whether (2, 3) numbers are finite, the lowest not above the highest."""
    return bool(np.isfinite(bounds).all() and (bounds[0] <= bounds[1]).all())


def distance_beyond(bounds: np.ndarray, points: np.ndarray) -> float:
    """How far points (n, 3) lie outside of bounds (2, 3), CRS units; 0 where it is no more than rounding explains."""
    beyond = np.maximum(bounds[0] - points, points - bounds[1]).max(axis=0, initial=0.0)
    tolerance = np.maximum(_TOLERANCE * (bounds[1] - bounds[0]), _TOLERANCE_UNITS)
    # NaN coordinates are found and reported where the points are read.
    return float(np.where(beyond > tolerance, beyond, 0.0).max())


def sample(stream: Any, header: laspy.LasHeader) -> np.ndarray:
    """(n, 3) float64, some points of the file, CRS units; its position is kept."""
    place, points = stream.tell(), []
    try:
        starts = _compressed_starts(stream, header) if header.are_points_compressed else _starts(header)
        for start in starts[:: -(-len(starts) // _SAMPLES) or 1]:
            stream.seek(start)
            content = stream.read(_XYZ_BYTES)
            if len(content) == _XYZ_BYTES:
                points.append(struct.unpack("<3i", content))
    finally:
        stream.seek(place)
    return np.array(points, np.float64).reshape(-1, 3) * header.scales + header.offsets


def _starts(header: laspy.LasHeader) -> list[int]:
    numbers = np.unique(np.linspace(0, header.point_count - 1, _SAMPLES).astype(np.int64))
    return (header.offset_to_point_data + numbers * header.point_format.size).tolist()


def _compressed_starts(stream: Any, header: laspy.LasHeader) -> list[int]:
    """Where the chunks of a LAZ file begin."""
    record = header.vlrs[header.vlrs.index("LasZipVlr")].record_data
    points_at = header.offset_to_point_data
    if is_pointwise(header):
        return [points_at]
    stream.seek(points_at)
    try:
        sizes = np.array([size for _, size in lazrs.read_chunk_table(stream, lazrs.LazVlr(record))], np.int64)
    except lazrs.LazrsError:  # no table: the first chunk begins where it always does
        return [points_at + _TABLE_OFFSET_BYTES]
    starts = points_at + _TABLE_OFFSET_BYTES + np.cumsum(sizes) - sizes
    return starts[sizes > 0].tolist()
