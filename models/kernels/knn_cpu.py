"""Dilated k nearest neighbours on the CPU: distances in register tiles, a limit, order statistics.

For some rows at a time the distances to all columns of their block are computed tile by tile. What is
nearer than a limit, estimated from 256 sampled columns, is kept; what is not never leaves the cache. Among
the kept, a little over k·d, a histogram finds the bins that hold the wanted ranks, and only these bins are
sorted. The N × N matrix never exists.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# mypy: check-untyped-defs=False
# numba finds the types of what it compiles; docstrings tell them.

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from numba import njit
from torch import Tensor

from models.kernels.dispatch import run_on_threads
from models.kernels.tiles_cpu import TILE_ROWS, TILE_VECTORS, VECTOR_BYTES, keep_below, multiply_tile
from pointcloud.compiling import compiled

TASK_ROWS = 48
"""Rows that share a pass over the columns: a panel of columns serves them all from the first-level cache."""
SAMPLES = 256
SAMPLED_FROM = 1024
"""Points of a block from which on a limit is estimated; below, all distances are kept."""
BINS = 512
CROWDED = 32
"""Entries of a bin up to which insertion is the quickest sort."""

_TASK = np.dtype(
    [(name, np.int64) for name in ("row", "end", "start", "panel", "num_panels", "wanted", "block")]
)


def search(x: Tensor, bounds: list[int], ranks: Tensor) -> Tensor:
    """The points at the given ranks of nearness, for every point among those of its own block.

    Args:
        x: (P, C) float32 or float64 on the CPU.
        bounds: (B + 1) first row of every block, and P.
        ranks: (B, K) int64 ascending, each below its block's size.

    Returns:
        (P, K) int32 rows of x. Of points at equal distance the lower row is nearer.
    """
    width = TILE_VECTORS * VECTOR_BYTES // x.element_size()
    order: list[np.ndarray] = []  # rows of x as the panels hold them, −1 where a panel is not full
    tasks: list[tuple[int, ...]] = []
    panel = capacity = 0
    for block, (start, end) in enumerate(pairwise(bounds)):
        n = end - start
        num_panels = -(-n // width)
        wanted = _wanted_samples(n, int(ranks[block, -1]) + 1)
        share = (wanted + 4 * math.sqrt(wanted)) / SAMPLES if wanted else 1.0
        capacity = max(capacity, math.ceil(n * share) + 2 * width)
        order += [np.arange(start, end), np.full(num_panels * width - n, -1)]
        if wanted:
            order.append(start + np.arange(SAMPLES) * n // SAMPLES)
        tasks += [
            (row, min(row + TASK_ROWS, end), start, panel, num_panels, wanted, block)
            for row in range(start, end, TASK_ROWS)
        ]
        panel += num_panels + (SAMPLES // width if wanted else 0)
    rows = np.concatenate(order)
    x = x.contiguous()
    panels, squares = x.new_empty(len(rows) * x.shape[1]), x.new_empty(len(rows))
    run_on_threads(_pack, panel, x.numpy(), rows, panels.numpy(), squares.numpy())
    found = torch.empty((len(x), ranks.shape[1]), dtype=torch.int32)
    run_on_threads(
        _search_tasks,
        len(tasks),
        x.numpy(),
        panels.numpy(),
        squares.numpy(),
        np.array(tasks, dtype=_TASK),
        ranks.numpy(),
        capacity,
        found.numpy(),
    )
    return found


def _wanted_samples(n: int, reach: int) -> int:
    """Of the samples, how many a limit must leave below it for `reach` of n points to be; 0: no limit."""
    if n < SAMPLED_FROM or 3 * reach > 2 * n:
        return 0
    share = reach / n
    return min(SAMPLES, math.ceil(SAMPLES * share + 3 * math.sqrt(SAMPLES * share * (1 - share)) + 1))


@compiled
def _pack(first, end, x, rows, panels, squares):
    """Panels first to end of x[rows], channel after channel, and |x|²; row −1 is infinitely far."""
    width = TILE_VECTORS * VECTOR_BYTES // x.itemsize
    num_channels = x.shape[1]
    for panel in range(first, end):
        of_panel = rows[panel * width : (panel + 1) * width]
        far = squares[panel * width : (panel + 1) * width]
        far[:] = 0
        for c in range(num_channels):
            at = (panel * num_channels + c) * width
            for w in range(width):
                value = x[max(of_panel[w], 0), c]
                panels[at + w] = value
                far[w] += value * value
        for w in range(width):
            if of_panel[w] < 0:
                far[w] = np.inf


@compiled
def _search_tasks(first, end, x, panels, squares, tasks, ranks, capacity, found):
    """Tasks first to end, in memory that is asked for once: fresh pages cost as much as the work."""
    num_channels = x.shape[1]
    width = TILE_VECTORS * VECTOR_BYTES // x.itemsize
    rows = np.empty(TASK_ROWS * num_channels, x.dtype)
    tile = _aligned(TILE_ROWS * width, x)
    limits = np.empty(TASK_ROWS, x.dtype)
    begins = np.arange(TASK_ROWS) * capacity
    full = begins + capacity - width
    ends = np.empty(TASK_ROWS, np.int64)
    longest = len(squares) + width
    kept = np.empty(TASK_ROWS * capacity, x.dtype)
    columns = np.empty(TASK_ROWS * capacity, np.int32)
    scratch = (
        np.empty(longest, np.uint32),
        np.empty(longest, np.uint32),
        np.empty(longest, x.dtype),
        np.empty(longest, np.int32),
        np.empty(BINS, np.int32),
        np.empty(BINS, np.int32),
        np.empty(ranks.shape[1], np.int32),
    )
    for task in tasks[first:end]:
        # |x_i − x_j|² = |x_i|² + |x_j|² − 2 x_i·x_j, and |x_i|² changes no order within a row: −2 x_i, by
        # tiles.
        rows[:] = 0
        for i in range(task.end - task.row):
            at = i // TILE_ROWS * TILE_ROWS * num_channels + i % TILE_ROWS
            for c in range(num_channels):
                rows[at + c * TILE_ROWS] = -2 * x[task.row + i, c]
        num_groups = (task.end - task.row + TILE_ROWS - 1) // TILE_ROWS
        limits[:] = np.inf
        if task.wanted > 0:
            _estimate_limits(rows, num_groups, panels, squares, task, tile, limits)
        ends[:] = begins
        _keep(rows, num_groups, panels, squares, task, limits, kept, columns, ends, full)
        block_ranks = ranks[task.block]
        for i in range(task.end - task.row):
            row = task.row + i
            count = ends[i] - begins[i]
            if block_ranks[-1] < count and ends[i] <= full[i]:
                _pick(kept[begins[i] :], columns[begins[i] :], count, block_ranks, scratch, found[row])
            else:
                _search_row(rows, i, panels, squares, task, block_ranks, scratch, found[row])
            for r in range(len(block_ranks)):
                found[row, r] += task.start


@njit
def _aligned(size, like):
    """Room whose 64-byte vectors lie in one cache line each."""
    room = np.empty(size + VECTOR_BYTES, like.dtype)
    skip = -room.ctypes.data % VECTOR_BYTES // like.itemsize
    return room[skip : skip + size]


@njit(error_model="numpy")
def _keep(rows, num_groups, panels, squares, task, limits, kept, columns, ends, full):
    """Append the distances below each row's limit, and their columns, at the row's end of kept and columns.

    A row that is full keeps no more; its end says so.
    """
    width = TILE_VECTORS * VECTOR_BYTES // rows.itemsize
    num_channels = len(panels) // len(squares)
    for panel in range(task.num_panels):
        at = (task.panel + panel) * width
        for group in range(num_groups):
            keep_below(
                rows, group * TILE_ROWS * num_channels, panels, at * num_channels, squares, at, num_channels,
                panel * width, limits, group * TILE_ROWS, kept, columns, ends, full,
            )  # fmt: skip


@njit(error_model="numpy")
def _search_row(rows, i, panels, squares, task, ranks, scratch, found):
    """Row i once more, all of it: its limit was too near or much too far, as happens to one in hundreds."""
    width = TILE_VECTORS * VECTOR_BYTES // rows.itemsize
    kept = np.empty((task.num_panels + 1) * width, rows.dtype)
    columns = np.empty(len(kept), np.int32)
    limits = np.full(TILE_ROWS, -np.inf, rows.dtype)
    limits[i % TILE_ROWS] = np.inf
    ends, full = np.zeros(TILE_ROWS, np.int64), np.full(TILE_ROWS, len(kept))
    group = rows[i // TILE_ROWS * TILE_ROWS * (len(panels) // len(squares)) :]
    _keep(group, 1, panels, squares, task, limits, kept, columns, ends, full)
    count = ends[i % TILE_ROWS]
    if count > ranks[-1]:
        _pick(kept, columns, count, ranks, scratch, found)
    else:
        found[:] = 0  # NaN or infinite distances have no order; the loss will say so soon enough.


@njit(error_model="numpy")
def _estimate_limits(rows, num_groups, panels, squares, task, tile, limits):
    """A distance for each row that about `wanted` of the sampled columns are nearer than."""
    width = TILE_VECTORS * VECTOR_BYTES // rows.itemsize
    num_channels = len(panels) // len(squares)
    sample = np.empty((TILE_ROWS, SAMPLES), rows.dtype)
    for group in range(num_groups):
        for panel in range(SAMPLES // width):
            at = (task.panel + task.num_panels + panel) * width
            x_at = group * TILE_ROWS * num_channels
            multiply_tile(tile, rows, x_at, panels, at * num_channels, squares, at, num_channels)
            for r in range(TILE_ROWS):
                for w in range(width):
                    sample[r, panel * width + w] = tile[r * width + w]
        for r in range(TILE_ROWS):
            low, high = _extremes(sample[r], SAMPLES)
            count = SAMPLES
            while count > task.wanted + 2:
                middle = (low + high) / 2
                if not low < middle < high:
                    break
                below = _count_below(sample[r], middle)
                if below < task.wanted:
                    low = middle
                else:
                    high, count = middle, below
            limits[group * TILE_ROWS + r] = high


@njit(fastmath=True)
def _extremes(values, n):
    low = high = values[0]
    for i in range(n):
        low, high = min(low, values[i]), max(high, values[i])
    return low, high


@njit
def _count_below(values, limit):
    count = np.int32(0)
    for i in range(len(values)):
        count += np.int32(values[i] < limit)
    return count


@njit(error_model="numpy")
def _pick(kept, columns, n, ranks, scratch, found):
    """found[r] = the column at ranks[r] of the n kept distances; of equal distances the earlier is nearer."""
    bin_of, chosen, near, near_columns, bins, begins, rank_bins = scratch
    num_bins = min(BINS, n)
    low, high = _extremes(kept, n)
    scale = (num_bins - 1) / (high - low) if high > low else 0.0
    _assign_bins(kept, n, low, kept.dtype.type(scale), kept.dtype.type(num_bins - 1), bin_of)
    bins[:num_bins] = 0
    begins[:num_bins] = -1
    for i in range(n):
        bins[bin_of[i]] += 1

    # Lay the bins that hold a wanted rank side by side; found says where in them the rank will be.
    b = before = begin = 0
    for r in range(len(ranks)):
        while before + bins[b] <= ranks[r]:
            before += bins[b]
            b += 1
        if begins[b] < 0:
            begins[b] = begin
            begin += bins[b]
        rank_bins[r] = b
        found[r] = begins[b] + ranks[r] - before
    num_chosen = 0
    for i in range(n):
        chosen[num_chosen] = i
        num_chosen += np.int64(begins[bin_of[i]] >= 0)
    for q in range(num_chosen):
        i = chosen[q]
        to = begins[bin_of[i]]
        begins[bin_of[i]] = to + 1
        near[to], near_columns[to] = kept[i], columns[i]

    last = -1
    for r in range(len(ranks)):
        b = rank_bins[r]
        if b != last:
            last = b
            if bins[b] > CROWDED:
                _sort_crowd(near, near_columns, begins[b] - bins[b], begins[b])
            elif bins[b] > 1:
                _insertion_sort(near, near_columns, begins[b] - bins[b], begins[b])
        found[r] = near_columns[found[r]]


@njit(fastmath=True)
def _assign_bins(values, n, low, scale, last, bin_of):
    for i in range(n):
        bin_of[i] = np.int32(min((values[i] - low) * scale, last))


@njit(error_model="numpy")
def _sort_crowd(values, columns, first, end):
    """Sort values[first:end]; of equal values the earlier stays first.

    Points far out squeeze all others into few bins: bins within the bin, as often as needed.
    """
    todo = np.empty((end - first, 2), np.int64)
    bin_of, ends = np.empty(end - first, np.uint32), np.empty(end - first + 1, np.int32)
    todo[0, 0], todo[0, 1] = first, end
    num_todo = 1
    while num_todo > 0:
        num_todo -= 1
        begin, n = todo[num_todo, 0], todo[num_todo, 1] - todo[num_todo, 0]
        low, high = _extremes(values[begin:], n)
        scale = (n - 1) / (high - low)
        if n <= CROWDED or low == high or scale == np.inf:
            _insertion_sort(values, columns, begin, begin + n)
            continue
        crowd, crowd_columns = values[begin : begin + n].copy(), columns[begin : begin + n].copy()
        _assign_bins(crowd, n, low, values.dtype.type(scale), values.dtype.type(n - 1), bin_of)
        ends[: n + 1] = 0
        for i in range(n):
            ends[bin_of[i] + 1] += 1
        for b in range(n):
            if ends[b + 1] > 1:
                todo[num_todo, 0], todo[num_todo, 1] = begin + ends[b], begin + ends[b] + ends[b + 1]
                num_todo += 1
            ends[b + 1] += ends[b]
        for i in range(n):
            to = begin + ends[bin_of[i]]
            ends[bin_of[i]] += 1
            values[to], columns[to] = crowd[i], crowd_columns[i]


@njit
def _insertion_sort(values, columns, first, end):
    for i in range(first + 1, end):
        value, column = values[i], columns[i]
        to = i
        while to > first and values[to - 1] > value:
            values[to], columns[to] = values[to - 1], columns[to - 1]
            to -= 1
        values[to], columns[to] = value, column
