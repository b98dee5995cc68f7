"""Dilated k nearest neighbours on a GPU: distances and selection fused, the N × N matrix never stored.

Four kernels, for as many rows at a time as their candidates have room:

1. `_sample`: the distances to some hundred columns.
2. `_estimate_limits`: by these, the distance within which a little over k·d columns lie.
3. `_keep`: all distances, tile by tile; what is within its row's limit is appended to the row's candidates. A
   row that got too few or too many is done again with another limit, by bisection, so no row is ever wrong.
4. `_pick`: sorts each row's candidates in registers and writes the wanted ranks.

Distances and columns are compared as one 64-bit key, the distance's bits in an order of integers above the
column: no two keys of a row are equal, a limit between any two of them exists, and of points at equal distance
the lower column is nearer. Distances are float32 ("ieee": no TF32). Not measured on a GPU yet: tile sizes are
chosen by what the compiler reports of registers and shared memory (tests/models/kernels/test_knn_triton.py).
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# mypy: check-untyped-defs=False
# Triton finds the types of what it compiles; docstrings tell them.

from __future__ import annotations

import math
from itertools import pairwise

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.kernels.tiles_triton import from_ordered, sorted_rows, tile_distances, to_ordered

CANDIDATES_PER_CHUNK = 2**25
"""Keys of 8 bytes that exist at once; the rows of a chunk must still fill a GPU."""
MAX_CAPACITY = 4096
"""Candidates of a row that can be sorted in registers."""
ROWS, COLUMNS = 64, 128
LIMIT_ROWS = 4
PICK_ELEMENTS = 1024
"""Candidates that one program sorts, of one row or of several."""

_FARTHEST = tl.constexpr(2**63 - 1)
_LARGEST_STEP = tl.constexpr(2**61)
_COLUMN = tl.constexpr(2**32 - 1)


def supports(bounds: list[int], ranks: Tensor) -> bool:
    """Whether every block's wanted ranks, (B, K), leave room to choose a limit."""
    return all(
        last < MAX_CAPACITY // 2 or end - start <= MAX_CAPACITY
        for last, (start, end) in zip(ranks[:, -1].tolist(), pairwise(bounds), strict=True)
    )


def search(x: Tensor, bounds: list[int], ranks: Tensor) -> Tensor:
    """The points at the given ranks of nearness, for every point among those of its own block.

    Args:
        x: (P, C) float32 on a GPU (or on the CPU, in Triton's interpreter).
        bounds: (B + 1) first row of every block, and P.
        ranks: (B, K) int64 ascending, each below its block's size, as `supports` requires; on the CPU.

    Returns:
        (P, K) int32 rows of x. Of points at equal distance the lower row is nearer. NaN distances are infinite.
    """
    x = x.contiguous()
    num_samples = 256 if max(end - start for start, end in pairwise(bounds)) <= 8192 else 1024
    wanted, capacity = _room(bounds, ranks[:, -1].tolist(), num_samples)
    tasks = torch.tensor(
        [
            (row, start, end, block)
            for block, (start, end) in enumerate(pairwise(bounds))
            for row in range(start, end, ROWS)
        ],
        dtype=torch.int32,
    ).to(x.device)
    plan = torch.cat([ranks, torch.tensor(wanted)[:, None]], dim=1).int().to(x.device)
    found = torch.empty((len(x), ranks.shape[1]), dtype=torch.int32, device=x.device)
    per_chunk = max(1, min(len(tasks), CANDIDATES_PER_CHUNK // (capacity * ROWS)))
    keys = torch.empty((per_chunk * ROWS, capacity), dtype=torch.int64, device=x.device)
    samples = torch.empty((len(keys), num_samples), dtype=torch.int32, device=x.device)
    counts = torch.empty(len(keys), dtype=torch.int32, device=x.device)
    limits = torch.empty((2, len(keys)), dtype=torch.int64, device=x.device)
    channels = {"num_channels": x.shape[1], "BLOCK_C": 16 if x.shape[1] <= 16 else 32}
    pick_rows = max(1, PICK_ELEMENTS // capacity)
    for part in tasks.split(per_chunk):
        rows = len(part) * ROWS
        _sample[len(part), num_samples // COLUMNS](
            x, part, samples, **channels, ROWS=ROWS, COLUMNS=COLUMNS, SAMPLES=num_samples, num_warps=8,
        )  # fmt: skip
        _estimate_limits[rows // LIMIT_ROWS,](
            samples, part, plan, limits, len(keys), ranks.shape[1],
            TASK_ROWS=ROWS, ROWS=LIMIT_ROWS, SAMPLES=num_samples, num_warps=4,
        )  # fmt: skip
        _keep[len(part),](
            x, part, plan, limits, len(keys), ranks.shape[1], keys, counts, **channels,
            ROWS=ROWS, COLUMNS=COLUMNS, CAPACITY=capacity, num_warps=8, num_stages=2,
        )  # fmt: skip
        _pick[rows // pick_rows,](
            keys, counts, part, plan, found, ranks.shape[1],
            TASK_ROWS=ROWS, ROWS=pick_rows, LOG_CAPACITY=capacity.bit_length() - 1,
            num_warps=max(2, capacity // 512),
        )  # fmt: skip
    return found


def _room(bounds: list[int], last_ranks: list[int], num_samples: int) -> tuple[list[int], int]:
    """How many samples each block's limit shall leave below it, 0 for no limit; candidates to make room for.

    The limit is three deviations of the sampling above what is wanted, the room four more.
    """
    wanted, room = [], 256
    for last, (start, end) in zip(last_ranks, pairwise(bounds), strict=True):
        n, share = end - start, (last + 1) / (end - start)
        mean = num_samples * share
        w = min(num_samples, math.ceil(mean + 3 * math.sqrt(mean * (1 - share)) + 1))
        wanted.append(w)
        room = max(room, min(n, math.ceil(n * (w + 4 * math.sqrt(w)) / num_samples)))
    capacity = min(MAX_CAPACITY, triton.next_power_of_2(room))
    sizes = [end - start for start, end in pairwise(bounds)]
    return [0 if n <= capacity else w for n, w in zip(sizes, wanted, strict=True)], capacity


@triton.jit
def _sample(
    x, tasks, samples, num_channels,
    BLOCK_C: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    """samples (rows, SAMPLES): `to_ordered` distances of each row to columns spread evenly over its block."""
    task = tl.program_id(0)
    start = tl.load(tasks + task * 4 + 1)
    end = tl.load(tasks + task * 4 + 2)
    rows = tl.load(tasks + task * 4) + tl.arange(0, ROWS)
    sample = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    columns = start + (sample.to(tl.int64) * (end - start) // SAMPLES).to(tl.int32)
    distances = tile_distances(x, rows, rows < end, columns, columns < end, num_channels, BLOCK_C)
    at = task.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    tl.store(samples + at[:, None] * SAMPLES + sample[None, :], to_ordered(distances))


@triton.jit
def _estimate_limits(
    samples, tasks, plan, limits, num_keys, num_ranks,
    TASK_ROWS: tl.constexpr, ROWS: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    """limits[0]: a key that `wanted` of a row's samples are within; limits[1]: a step to another such key."""
    at = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    block = tl.load(tasks + tl.program_id(0) * ROWS // TASK_ROWS * 4 + 3)
    wanted = tl.load(plan + block * (num_ranks + 1) + num_ranks)
    if wanted == 0:
        tl.store(limits + at, tl.full([ROWS], _FARTHEST, tl.int64))
        tl.store(limits + num_keys + at, tl.full([ROWS], 1, tl.int64))
    else:
        ordered = tl.load(samples + at.to(tl.int64)[:, None] * SAMPLES + tl.arange(0, SAMPLES)[None, :])
        nearest = tl.min(ordered, axis=1)
        low, high = nearest.to(tl.int64), tl.max(ordered, axis=1).to(tl.int64)
        # The smallest value that `wanted` samples are within, by bisection: a round for each of its bits.
        for _ in range(32):
            middle = (low + high) >> 1
            enough = tl.sum((ordered <= middle.to(tl.int32)[:, None]).to(tl.int32), axis=1) >= wanted
            high = tl.where(enough, middle, high)
            low = tl.where(enough, low, tl.minimum(middle + 1, high))
        limit, least = from_ordered(high.to(tl.int32)), from_ordered(nearest)
        farther = to_ordered(limit + 0.125 * (limit - least)).to(tl.int64)
        tl.store(limits + at, (high << 32) | _COLUMN)
        tl.store(limits + num_keys + at, tl.maximum(farther - high, 1) << 32)


@triton.jit
def _keep(
    x, tasks, plan, limits, num_keys, num_ranks, keys, counts, num_channels,
    BLOCK_C: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CAPACITY: tl.constexpr,
):  # fmt: skip
    """Each row's keys up to its limit, more than its last rank and at most CAPACITY, in no order; and how many."""
    task = tl.program_id(0)
    row = tl.load(tasks + task * 4)
    start = tl.load(tasks + task * 4 + 1)
    end = tl.load(tasks + task * 4 + 2)
    last_rank = tl.load(plan + tl.load(tasks + task * 4 + 3) * (num_ranks + 1) + num_ranks - 1)
    rows = row + tl.arange(0, ROWS)
    at = task * ROWS + tl.arange(0, ROWS)
    limit = tl.load(limits + at)
    step = tl.load(limits + num_keys + at)
    farthest = tl.full([ROWS], _FARTHEST, tl.int64)
    too_near = -farthest  # largest limit known to keep too few
    too_far = farthest  # smallest limit known to keep too many
    kept = tl.zeros([ROWS], tl.int32)
    todo = rows < end
    while tl.sum(todo.to(tl.int32), axis=0) > 0:
        kept = tl.where(todo, 0, kept)
        limit_distance = (limit >> 32).to(tl.int32)
        limit_column = (limit & _COLUMN).to(tl.uint32)
        for first in range(start, end, COLUMNS):
            columns = first + tl.arange(0, COLUMNS)
            distances = tile_distances(x, rows, rows < end, columns, columns < end, num_channels, BLOCK_C)
            ordered = to_ordered(distances)
            within = (ordered < limit_distance[:, None]) | (
                (ordered == limit_distance[:, None])
                & (columns.to(tl.uint32)[None, :] <= limit_column[:, None])
            )
            within = (within & todo[:, None] & (columns < end)[None, :]).to(tl.int32)
            place = kept[:, None] + tl.cumsum(within, axis=1) - 1
            tl.store(
                keys + at[:, None] * CAPACITY + place,
                (ordered.to(tl.int64) << 32) | columns.to(tl.int64)[None, :],
                mask=(within > 0) & (place < CAPACITY),
            )
            kept += tl.sum(within, axis=1)
        few = todo & (kept <= last_rank)
        many = todo & (kept > CAPACITY)
        # Steps that double until the limit is between two that failed, then halves: 2⁶⁴ keys, 128 rounds at worst.
        too_near = tl.where(few, limit, too_near)
        too_far = tl.where(many, limit, too_far)
        halfway = (too_near >> 1) + (too_far >> 1)
        up = tl.where(limit > farthest - step, farthest, limit + step)
        down = tl.where(limit < step - farthest, -farthest, limit - step)
        limit = tl.where(few, tl.where(too_far == farthest, up, halfway), limit)
        limit = tl.where(many, tl.where(too_near == -farthest, down, halfway), limit)
        step = tl.where(few | many, tl.minimum(step * 2, _LARGEST_STEP), step)
        todo = few | many
    tl.store(counts + at, kept)


@triton.jit
def _pick(
    keys, counts, tasks, plan, found, num_ranks,
    TASK_ROWS: tl.constexpr, ROWS: tl.constexpr, LOG_CAPACITY: tl.constexpr,
):  # fmt: skip
    """found (P, K): the columns of each row's keys at the wanted ranks."""
    CAPACITY: tl.constexpr = 1 << LOG_CAPACITY
    at = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    task = tl.program_id(0) * ROWS // TASK_ROWS
    rows = tl.load(tasks + task * 4) + at % TASK_ROWS
    end = tl.load(tasks + task * 4 + 2)
    block = tl.load(tasks + task * 4 + 3)
    place = tl.arange(0, CAPACITY)
    filled = place[None, :] < tl.load(counts + at)[:, None]
    near = tl.load(keys + at.to(tl.int64)[:, None] * CAPACITY + place[None, :], mask=filled, other=_FARTHEST)
    columns = (sorted_rows(near, ROWS, LOG_CAPACITY) & _COLUMN).to(tl.int32)
    for r in range(num_ranks):
        rank = tl.load(plan + block * (num_ranks + 1) + r)
        column = tl.sum(tl.where((place == rank)[None, :], columns, 0), axis=1)
        tl.store(found + rows.to(tl.int64) * num_ranks + r, column, mask=rows < end)
