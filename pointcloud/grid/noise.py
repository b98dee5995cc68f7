"""Isolated points far below or above all others, found from how many points lie at which height.

The rule joins two that are in use. The extended local minimum (PDAL `filters.elm`; Chen et al., "Upward-fusion urban
DTM generating method using airborne LiDAR data", ISPRS 2012) compares the lowest point of a cell with the next ones.
The isolated voxel filter (`lasnoise`, lidR `ivf`) counts the points in a voxel and those around it. Here a few points
are outliers where a gap separates them from all other points of their column and of the eight columns around it.

Only counts on a grid that starts at the origin of the CRS decide. So the order of the points does not matter, nor the
files that they come in.
"""

from __future__ import annotations

import math

import numpy as np

from pointcloud.compiling import compiled
from pointcloud.grid.kernels import surely_between
from pointcloud.grid.voxels import occupied_cells

BIN_M = 1.0
"""Height of a bin in metres. Gaps are counted in empty bins: a gap of 3 bins is 3 to 5 m wide."""
GAP_BELOW_M = 3.0
"""The smallest gap above outliers that lie below all others. With the 1 m of `filters.elm` ditches are outliers too."""
GAP_ABOVE_M = 20.0
"""The smallest gap below outliers that lie above all others: lamps and masts of a few returns are not outliers."""
_WIDE_GAP_M = 10.0
"""From this gap on more points together may be outliers: a cloud of multipath or a flock of birds."""
_FEW, _MANY = 5, 10  # points, 5 as `lasnoise -isolated 5`
_FEW_OF, _MANY_OF = (
    200,
    500,
)  # and at most one in so many points of the nine columns: sparse scans have real ones
_DENSE_BINS = 1 << 20  # a table of so many bins is filled at once; above, bins are sorted
GAP_BELOW_NEIGHBOURS_M = 2.0
"""The smallest gap above outliers that lie below what the columns on opposite sides have as their lowest points."""
_FEW_OF_COLUMN = 50
"""Of the points of one column at most one in so many is an outlier by that gap: between houses a sparse survey has
columns whose only point on the ground looks like one."""
_FEWEST_PAIRS = 2
ROUNDS = 2
"""Outliers that others hide are found in the next round, as `filters.elm` goes on with the next lowest point. A round
looks one column further."""


def height_profile(
    xyz: np.ndarray, cell_size: float, bin_size: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many points of a cloud lie in each bin of height of each ground cell.

    Args:
        xyz: (P, 3) float64, P ≥ 1, CRS units.
        cell_size: edge of a ground cell in horizontal CRS units; bin_size: height of a bin in vertical ones.

    Returns:
        bins: (K, 3) int64, ground cell and bin, sorted; num_points: (K,) int64; lowest: (K,) float64, the lowest z.
    """
    x, y, z = xyz.T
    size = np.array([cell_size, cell_size, bin_size])
    low, high = (
        np.floor([end(axis) for axis in (x, y, z)] / size).astype(np.int64) for end in (np.min, np.max)
    )
    spans = [int(span) for span in high - low + 1]
    if math.prod(spans) > _DENSE_BINS:
        return merge_profiles(*_runs(x, y, z, cell_size, bin_size))
    count, lowest = np.zeros(spans, np.int64), np.full(spans, np.inf)
    _fill(x, y, z, cell_size, bin_size, low, count, lowest)
    occupied = np.flatnonzero(count)
    bins = np.stack(np.unravel_index(occupied, count.shape), axis=1) + low
    return bins, count.ravel()[occupied], lowest.ravel()[occupied]


def merge_profiles(
    bins: np.ndarray, num_points: np.ndarray, lowest: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Several profiles in one table (R rows), as one profile in which each bin occurs once; see `height_profile`."""
    merged, total = occupied_cells(bins, num_points, np.add)
    return merged, total, occupied_cells(bins, lowest, np.minimum)[1]


def find_outliers(
    bins: np.ndarray, num_points: np.ndarray, lowest: np.ndarray, bin_size: float
) -> np.ndarray:
    """Which bins hold outliers only.

    From the bottom, and likewise from the top, the points of a column and of the eight around it are counted until a
    gap of empty bins follows. Those counted are outliers where they are few and the gap is at least `GAP_BELOW_M`
    (`GAP_ABOVE_M` at the top) and half as high as the lowest (highest) other points of the nine columns vary, so that
    the foot of a cliff, or ground seen through few holes in a canopy, is none.

    On a slope a point may lie well below the ground and above the lowest of nine columns. So a few points at the bottom
    of one column are outliers too where the gap to the others of that column is at least `GAP_BELOW_NEIGHBOURS_M`, and
    they lie as far below the surface between the lowest points of the columns on opposite sides: below each pair of
    them, and by no less than the pairs differ.

    Args:
        bins: (K, 3) int64, num_points: (K,) int64, lowest: (K,) float64, sorted as `height_profile` returns them.
        bin_size: height of a bin in vertical CRS units.

    Returns:
        (K,) bool.
    """
    is_outlier = np.zeros(len(bins), bool)
    if not len(bins):
        return is_outlier
    first = np.flatnonzero(np.diff(bins[:, :2], axis=0, prepend=bins[:1, :2] - 1).any(axis=1))
    ends = np.append(first[1:], len(bins))
    beside = _columns_beside(bins[first, :2])
    gaps = round(GAP_BELOW_M / BIN_M), round(GAP_ABOVE_M / BIN_M)
    for _ in range(ROUNDS):
        before = is_outlier.copy()
        counts = np.where(before, 0, num_points)
        for upwards, gap in zip((True, False), gaps, strict=True):
            _mark(np.ascontiguousarray(bins[:, 2]), counts, first, ends, beside, gap, upwards, is_outlier)
        _mark_below_neighbours(
            lowest / bin_size, counts, first, ends, beside, GAP_BELOW_NEIGHBOURS_M / BIN_M, is_outlier
        )
        if (before == is_outlier).all():
            break
    return is_outlier


def _columns_beside(columns: np.ndarray) -> np.ndarray:
    """Row numbers (C, 9) of the columns in and around each of (C, 2) sorted columns, -1 where there is none."""
    low = columns.min(axis=0) - 1
    width = int(np.ptp(columns[:, 1])) + 3
    key = (columns[:, 0] - low[0]) * width + columns[:, 1] - low[1]
    beside = np.empty((len(columns), 9), np.int64)
    for n, offset in enumerate(di * width + dj for di in (-1, 0, 1) for dj in (-1, 0, 1)):
        at = np.minimum(np.searchsorted(key, key + offset), len(key) - 1)
        beside[:, n] = np.where(key[at] == key + offset, at, -1)
    return beside


@compiled
def _may_be_outliers(num_below: int, num_all: int, gap: int) -> bool:
    if num_below <= min(_FEW, num_all // _FEW_OF):
        return True
    wide = gap >= _WIDE_GAP_M / BIN_M
    return wide and num_below <= max(min(_MANY, num_all // _FEW_OF), num_all // _MANY_OF)


@compiled
def _mark(
    height: np.ndarray, counts: np.ndarray, first: np.ndarray, ends: np.ndarray, beside: np.ndarray,
    smallest_gap: int, upwards: bool, is_outlier: np.ndarray,
) -> None:  # fmt: skip
    """Mark the bins (K,) of outliers at one end of each column; bins without points count as empty.

    Args:
        height, counts: (K,) int64 of each bin; first, ends: (C,) where the bins of each column begin and end.
        beside: (C, 9), see `_columns_beside`.
        upwards: from the lowest bin upwards, else from the highest downwards.
    """
    sign = 1 if upwards else -1
    at, stop = np.empty(9, np.int64), np.empty(9, np.int64)
    for column in range(len(first)):
        num_all = 0
        for n in range(9):
            at[n] = stop[n] = 0
            other = beside[column, n]
            if other >= 0:
                for row in range(first[other], ends[other]):
                    num_all += counts[row]
                at[n] = first[other] if upwards else ends[other] - 1
                stop[n] = ends[other] if upwards else first[other] - 1
        num_so_far, last, limit, found = 0, 0, 0, False
        while True:
            # The next height with points, and how far the columns' next heights are apart.
            nearest, farthest, any_left = 0, 0, False
            for n in range(9):
                while at[n] != stop[n] and counts[at[n]] == 0:
                    at[n] += sign
                if at[n] != stop[n]:
                    h = sign * height[at[n]]
                    nearest = h if not any_left else min(nearest, h)
                    farthest = h if not any_left else max(farthest, h)
                    any_left = True
            if not any_left:
                break
            if num_so_far:
                gap = nearest - last - 1
                if not _may_be_outliers(num_so_far, num_all, 1 << 30):
                    break
                is_wide = gap >= max(smallest_gap, (farthest - nearest) // 2)
                if is_wide and _may_be_outliers(num_so_far, num_all, gap):
                    limit, found = last, True
            for n in range(9):
                if at[n] != stop[n] and sign * height[at[n]] == nearest:
                    num_so_far += counts[at[n]]
                    at[n] += sign
            last = nearest
        if found:
            for row in range(first[column], ends[column]):
                if sign * height[row] <= limit:
                    is_outlier[row] = True


@compiled
def _mark_below_neighbours(
    lowest: np.ndarray, counts: np.ndarray, first: np.ndarray, ends: np.ndarray, beside: np.ndarray,
    smallest_gap: float, is_outlier: np.ndarray,
) -> None:  # fmt: skip
    """Mark the bins (K,) at the bottom of each column that lie below the surface which the columns around it tell.

    Args:
        lowest: (K,) float64, lowest z of each bin, in bins.
        counts, first, ends, beside, is_outlier: as for `_mark`.
        smallest_gap: in bins.
    """
    level = np.full(len(first), np.nan)  # of the lowest points of each column
    for column in range(len(first)):
        for row in range(first[column], ends[column]):
            if counts[row] and not is_outlier[row]:
                level[column] = lowest[row]
                break
    for column in range(len(first)):
        # Half-way between two opposite columns lies the ground of a slope too. Where the ground is no plane, or few
        # reach it, the pairs differ.
        surface, highest, num_pairs = np.inf, -np.inf, 0
        for n in range(4):
            one, opposite = beside[column, n], beside[column, 8 - n]
            if one >= 0 and opposite >= 0 and np.isfinite(level[one] + level[opposite]):
                middle = (level[one] + level[opposite]) / 2
                surface, highest, num_pairs = min(surface, middle), max(highest, middle), num_pairs + 1
        if num_pairs < _FEWEST_PAIRS:
            continue
        gap = max(smallest_gap, highest - surface)
        most = min(_FEW, counts[first[column] : ends[column]].sum() // _FEW_OF_COLUMN)
        num_so_far, last, end = 0, 0.0, first[column]
        for row in range(first[column], ends[column]):
            if not counts[row] or is_outlier[row]:
                continue
            if num_so_far and lowest[row] - last >= gap:
                end = row
            num_so_far += counts[row]
            if num_so_far > most or lowest[row] > surface - gap:
                break
            last = lowest[row]
        is_outlier[first[column] : end] = True


@compiled
def _fill(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, cell_size: float, bin_size: float,
    low: np.ndarray, count: np.ndarray, lowest: np.ndarray,
) -> None:  # fmt: skip
    """Count points (P,) in a table of bins whose first one is `low` (3,), and keep the lowest z in each."""
    i = j = k = np.int64(0)
    x_low = y_low = z_low = np.inf
    x_high = y_high = z_high = -np.inf
    for n in range(len(x)):
        if not (x_low < x[n] < x_high and y_low < y[n] < y_high):
            i, j = np.int64(np.floor(x[n] / cell_size)), np.int64(np.floor(y[n] / cell_size))
            x_low, x_high = surely_between(i, i + 1, cell_size)
            y_low, y_high = surely_between(j, j + 1, cell_size)
        if not z_low < z[n] < z_high:
            k = np.int64(np.floor(z[n] / bin_size))
            z_low, z_high = surely_between(k, k + 1, bin_size)
        a, b, c = i - low[0], j - low[1], k - low[2]
        count[a, b, c] += 1
        lowest[a, b, c] = min(lowest[a, b, c], z[n])


@compiled
def _runs(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, cell_size: float, bin_size: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points in turn in one bin of one ground cell: (R, 3) int64, how many (R,) int64, their lowest z (R,) float64."""
    runs, count, lowest = np.empty((len(x), 3), np.int64), np.empty(len(x), np.int64), np.empty(len(x))
    x_low = y_low = z_low = np.inf
    x_high = y_high = z_high = -np.inf
    num = 0
    for n in range(len(x)):
        same_cell = x_low < x[n] < x_high and y_low < y[n] < y_high
        if same_cell and z_low < z[n] < z_high:
            count[num - 1] += 1
            lowest[num - 1] = min(lowest[num - 1], z[n])
            continue
        if same_cell:
            i, j = runs[num - 1, 0], runs[num - 1, 1]
        else:
            i, j = np.int64(np.floor(x[n] / cell_size)), np.int64(np.floor(y[n] / cell_size))
            x_low, x_high = surely_between(i, i + 1, cell_size)
            y_low, y_high = surely_between(j, j + 1, cell_size)
        k = np.int64(np.floor(z[n] / bin_size))
        z_low, z_high = surely_between(k, k + 1, bin_size)
        runs[num, 0], runs[num, 1], runs[num, 2], count[num], lowest[num] = i, j, k, 1, z[n]
        num += 1
    return runs[:num].copy(), count[:num].copy(), lowest[:num].copy()


def bins_of(xyz: np.ndarray, cell_size: float, bin_size: float) -> np.ndarray:
    """The bins (P, 3) int64 that points (P, 3) lie in, as `height_profile` counts them."""
    size = np.array([cell_size, cell_size, bin_size])
    return np.floor(xyz / size).astype(np.int64)
