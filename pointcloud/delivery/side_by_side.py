"""Clouds of any format that hold the same points in the same order, read side by side in chunks of equal length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from pyproj import CRS

from pointcloud.cloud import Cloud
from pointcloud.crs import metres_per_unit
from pointcloud.delivery.read_back import iterate_classified, iterate_confidence
from pointcloud.errors import PointloomError

_TOLERANCE_M = 5e-4  # half a millimetre: the scale of either file may differ, a point may not
_Chunk = TypeVar("_Chunk", Cloud, np.ndarray)


@dataclass(frozen=True, kw_only=True, slots=True)
class SamePoints:
    """The next n points as each of several clouds has them.

    Attributes:
        clouds: by URI, n points each, with classes.
        confidence: (n,) in [0, 1], of the labelled cloud; None where it has none or it was not asked for.
    """

    clouds: dict[str, Cloud]
    confidence: np.ndarray | None


def iterate_same_points(
    labelled: str,
    others: Mapping[str, str],
    with_confidence: bool = True,
    crs: Mapping[str, CRS] | None = None,
) -> Iterator[SamePoints]:
    """The points of a labelled cloud and of others, at most `CHUNK_POINTS` at a time, never a whole cloud.

    Whether the points are the same is known at the end: use what was computed of them only if nothing was raised.

    Args:
        labelled: URI of the labelled cloud.
        others: URI -> what the labelled cloud is with it, such as "scored against".
        crs: URI -> the CRS that a cloud is read in, in place of what its file says.
        with_confidence: False where it is not used: a LAZ file is decoded a second time for it.

    Raises:
        PointloomError: other points, or another number of them; one sentence names both clouds.
        ScanError: a cloud that is unreadable, without points or without classes; a CRS in degrees.
        StorageError: nothing there.
    """
    streams = {
        uri: _Stream(iterate_classified(uri, (crs or {}).get(uri)))
        for uri in dict.fromkeys((labelled, *others))
    }
    confidence = _Stream(iterate_confidence(labelled) if with_confidence else iter(()))
    has_confidence = confidence.num_ready() > 0
    moved_m = dict.fromkeys(others, 0.0)
    while count := min(stream.num_ready() for stream in streams.values()):
        if has_confidence:
            count = min(count, confidence.num_ready())
        clouds = {uri: stream.next_points(count) for uri, stream in streams.items()}
        metres = np.array(metres_per_unit(clouds[labelled].crs))[[0, 0, 1]]
        for uri in moved_m:
            moved = np.abs((clouds[labelled].xyz - clouds[uri].xyz) * metres).max()
            moved_m[uri] = max(moved_m[uri], float(moved))
        yield SamePoints(clouds=clouds, confidence=confidence.next_points(count) if has_confidence else None)
    for uri, relation in others.items():
        num_points, num_others = streams[labelled].num_points(), streams[uri].num_points()
        if num_points != num_others:
            raise PointloomError(
                f"{labelled!r} has {num_points:,} points and {uri!r}, which it is {relation}, {num_others:,}; "
                "expected the same points in the same order."
            )
        if moved_m[uri] > _TOLERANCE_M:
            raise PointloomError(
                f"points of {labelled!r} lie up to {moved_m[uri]:.3g} m from those of {uri!r}, which they are "
                f"{relation}; expected the same points in the same order."
            )


class _Stream(Generic[_Chunk]):
    """The points of one cloud, whose chunks may have any length, so many at a time as the caller asks for."""

    def __init__(self, chunks: Iterator[_Chunk]) -> None:
        self._chunks: Iterator[_Chunk] = chunks
        self._chunk: _Chunk | None = None
        self._start = 0
        self._num_decoded = 0

    def num_ready(self) -> int:
        """How many points the current chunk has left; 0 at the end."""
        while self._chunk is None or self._start == len(self._chunk):
            self._chunk, self._start = next(self._chunks, None), 0
            if self._chunk is None:
                return 0
            self._num_decoded += len(self._chunk)
        return len(self._chunk) - self._start

    def next_points(self, count: int) -> _Chunk:
        """The next `count` points, of those that are ready."""
        assert self._chunk is not None, "num_ready() comes first"
        start, self._start = self._start, self._start + count
        # A slice of a cloud is a copy; formats that are cut alike, the usual case, need none.
        return self._chunk if count == len(self._chunk) else self._chunk[start : self._start]

    def num_points(self) -> int:
        """The number of all points; the rest is decoded for it."""
        self._num_decoded += sum(map(len, self._chunks))
        return self._num_decoded
