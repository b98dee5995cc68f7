"""The ground below several decoded scans together: its lowest points, and the isolated points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pointcloud.blocks.decoded import DecodedScan
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.grid import Grid
from pointcloud.grid.noise import bins_of, find_outliers, merge_profiles
from pointcloud.grid.voxels import occupied_cells


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """Lowest points and outliers, the same whichever files a survey comes in.

    Attributes:
        cells: (G, 2) int64, occupied ground cells, sorted; lowest: (G,) float64, lowest z in each, without outliers.
        outlier_bins: (O, 3) int64, bins of height whose points are outliers, see `pointcloud.grid.noise`.
        cell_size, bin_size: of ground cells and bins, CRS units.
    """

    cells: np.ndarray
    lowest: np.ndarray
    outlier_bins: np.ndarray
    cell_size: float
    bin_size: float

    @staticmethod
    def of(decoded_scans: Sequence[DecodedScan], config: BlockConfig) -> Ground:
        """The ground below a scan and its decoded neighbours."""
        grid = Grid.of(config, decoded_scans[0].crs)
        bins, num_points, lowest = merge_profiles(
            np.concatenate([decoded.bins for decoded in decoded_scans]),
            np.concatenate([decoded.bin_points for decoded in decoded_scans]),
            np.concatenate([decoded.bin_lowest for decoded in decoded_scans]),
        )
        is_outlier = np.zeros(len(bins), bool)
        if config.excludes_noise:
            is_outlier = find_outliers(bins, num_points, lowest, grid.bin_size)
        cells, lowest = occupied_cells(bins[~is_outlier, :2], lowest[~is_outlier], np.minimum)
        return Ground(
            cells=cells,
            lowest=lowest,
            outlier_bins=bins[is_outlier],
            cell_size=grid.ground_size,
            bin_size=grid.bin_size,
        )

    def is_outlier(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray | None:
        """Which points (P,) are outliers: (P,) bool, or None where none of them is."""
        if not len(self.outlier_bins) or not len(x):
            return None
        size = np.array([self.cell_size, self.cell_size, self.bin_size])
        low, high = (np.floor([end(axis) for axis in (x, y, z)] / size) for end in (np.min, np.max))
        nearby = self.outlier_bins[((self.outlier_bins >= low) & (self.outlier_bins <= high)).all(axis=1)]
        if not len(nearby):
            return None
        mask = self._in_bins(bins_of(np.stack([x, y, z], axis=1), self.cell_size, self.bin_size), nearby)
        return mask if mask.any() else None

    def num_outliers(self, decoded: DecodedScan) -> int:
        """How many points of a scan are outliers."""
        if not len(self.outlier_bins):
            return 0
        return int(decoded.bin_points[self._in_bins(decoded.bins, self.outlier_bins)].sum())

    @staticmethod
    def _in_bins(bins: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """(P,) bool: which of some bins (P, 3) are among those wanted (O, 3)."""
        low = wanted.min(axis=0)
        span = np.ptp(wanted, axis=0) + 1
        near = np.flatnonzero(((bins >= low) & (bins < low + span)).all(axis=1))
        keys = [((some - low) @ np.array([span[1] * span[2], span[2], 1])) for some in (bins[near], wanted)]
        found = np.zeros(len(bins), bool)
        found[near] = np.isin(keys[0], keys[1])
        return found


def describe_noise(num_marked: int, num_outliers: int) -> list[str]:
    """One sentence on each kind of noise that a scan holds, for its record and its report."""
    sentences = []
    if num_marked:
        sentences.append(
            f"{num_marked:,} of its points are marked as noise or as withheld: they are no context for other points."
        )
    if num_outliers:
        sentences.append(
            f"{num_outliers:,} of its points are isolated far below or above all others: they are no context for other "
            "points."
        )
    return sentences
