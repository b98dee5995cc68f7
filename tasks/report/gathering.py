"""A scan's view from chunks: all points of an ordinary scan, of a larger one a sample, in bounded memory."""

from __future__ import annotations

import numpy as np

from tasks.report.content import ScanCounts, ScanView

# Factor by which more points are kept for a while, so that not every chunk needs a search through all of them.
_SLACK = 1.25


class GatheredView:
    """Takes a scan chunk by chunk, and keeps at most `max_points` of its points.

    Every point is drawn a number with a fixed seed, and those with the lowest numbers are kept, in the order of the
    scan. So each point has the same chance wherever it lies, the number of points need not be known beforehand, and
    the sample is the same on every call, however the chunks are cut. Every n-th point would follow the scan lines.
    """

    def __init__(self, name: str, max_points: int) -> None:
        self._name, self._max_points = name, max_points
        self._draws = np.random.default_rng(0)
        self._below = 1.0
        self._counts = ScanCounts()
        self._num_kept = 0
        self._kept: dict[str, list[np.ndarray]] = {}

    def add(
        self,
        xyz: np.ndarray,
        before: np.ndarray,
        after: np.ndarray,
        truth: np.ndarray | None,
        confidence: np.ndarray | None,
    ) -> None:
        """The next points, arrays as in `ScanView`; truth and confidence of all chunks or of none."""
        self._counts += ScanCounts.of(before, after, truth, confidence)
        numbers = self._draws.random(len(xyz))
        kept = numbers < self._below
        given = {"number": numbers, "xyz": xyz, "before": before, "after": after, "truth": truth}
        for name, values in (given | {"confidence": confidence}).items():
            if values is not None:
                self._kept.setdefault(name, []).append(values[kept])
        self._num_kept += int(np.count_nonzero(kept))
        if self._num_kept > _SLACK * self._max_points:
            self._thin()

    def view(self) -> ScanView:
        """What was gathered. Raises ValueError as `ScanView`, or where nothing was."""
        if self._num_kept > self._max_points:
            self._thin()
        columns = {name: np.concatenate(parts) for name, parts in self._kept.items()}
        del columns["number"]
        is_sample = self._num_kept < self._counts.num_points
        return ScanView(self._name, **columns, whole=self._counts if is_sample else None)

    def _thin(self) -> None:
        numbers = np.concatenate(self._kept["number"])
        self._below = np.partition(numbers, self._max_points)[self._max_points]
        kept = numbers < self._below
        # Column by column: never two copies of all that is kept.
        for name, parts in self._kept.items():
            self._kept[name] = [np.concatenate(parts)[kept]]
        self._num_kept = int(np.count_nonzero(kept))
