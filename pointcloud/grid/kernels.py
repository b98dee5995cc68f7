"""Loops over points that NumPy would pass over several times, compiled by numba when they are first called."""

from __future__ import annotations

import numpy as np

from pointcloud.compiling import compiled

_POINTS_AT_ONCE = 4096


@compiled
def radix_group(key: np.ndarray, num_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Points by key: their order (P,) int64, equal keys as they come, and where in it each key starts (V,) int64.

    A radix sort from the lowest digit. Digits have at most 10 bits, so that the counts of one fit the first cache.

    Args:
        key: (P,) uint32, or int64 ≥ 0, below 2 ** num_bits.
    """
    num = len(key)
    num_rounds = max(1, (num_bits + 9) // 10)
    width = (num_bits + num_rounds - 1) // num_rounds
    mask = (1 << width) - 1
    places = np.zeros((num_rounds, mask + 1), np.int64)
    for n in range(num):
        for turn in range(num_rounds):
            places[turn, (key[n] >> (turn * width)) & mask] += 1
    if num_rounds == 1:  # where keys start is known without the sorted keys
        order, place = np.empty(num, np.int64), places[0]
        starts, below, num_groups = np.empty(min(num, mask + 1), np.int64), 0, 0
        for digit in range(mask + 1):
            if place[digit]:
                starts[num_groups] = below
                num_groups += 1
            below, place[digit] = below + place[digit], below
        for n in range(num):
            at = place[key[n]]
            place[key[n]] = at + 1
            order[at] = n
        return order, starts[:num_groups].copy()
    order, keys = np.arange(num), key
    other_order, other_keys = np.empty(num, np.int64), np.empty_like(key)
    spare_keys = np.empty_like(key)
    for turn in range(num_rounds):
        shift, place, below = turn * width, places[turn], 0
        for digit in range(mask + 1):
            below, place[digit] = below + place[digit], below
        for n in range(num):
            digit = (keys[n] >> shift) & mask
            at = place[digit]
            place[digit] = at + 1
            other_order[at], other_keys[at] = order[n], keys[n]
        order, other_order = other_order, order
        keys, other_keys = other_keys, keys if turn else spare_keys
    starts, num_groups = other_order, 0
    for n in range(num):
        if n == 0 or keys[n] != keys[n - 1]:
            starts[num_groups] = n
            num_groups += 1
    return order, starts[:num_groups].copy()


@compiled
def nearest_to_centre(
    order: np.ndarray, starts: np.ndarray,
    x: np.ndarray, y: np.ndarray, z: np.ndarray, horizontal: float, vertical: float,
) -> np.ndarray:  # fmt: skip
    """The point that stands for each voxel (V,), as `Voxels` says, for points grouped by voxel.

    Args:
        order: (P,), starts: (V,).
        x, y, z: (P,) float64; horizontal, vertical: the voxel's edges.
    """
    chosen = np.empty(len(starts), np.int64)
    for voxel in range(len(starts)):
        end = starts[voxel + 1] if voxel + 1 < len(starts) else len(order)
        best, smallest = order[starts[voxel]], np.inf
        if end == starts[voxel] + 1:
            chosen[voxel] = best
            continue
        for n in range(starts[voxel], end):
            point = order[n]
            u, v, w = x[point] / horizontal, y[point] / horizontal, z[point] / vertical
            u, v, w = u - np.floor(u) - 0.5, v - np.floor(v) - 0.5, w - np.floor(w) - 0.5
            distance = u * u + v * v + w * w
            # On a grid of centimetres several are often equally near: coordinates decide, then the place.
            if distance < smallest or (
                distance == smallest
                and (x[point], y[point], z[point], point) < (x[best], y[best], z[best], best)
            ):
                best, smallest = point, distance
        chosen[voxel] = best
    return chosen


@compiled
def add_by_key(key: np.ndarray, values: np.ndarray, table: np.ndarray, first: np.ndarray) -> None:
    """Add values (P,) up by key into a table (K,), and note the first point of each key (K,), -1 where none."""
    first[:] = -1
    for n in range(len(key)):
        if first[key[n]] < 0:
            first[key[n]] = n
        table[key[n]] += values[n]


@compiled
def lowest_by_key(key: np.ndarray, values: np.ndarray, table: np.ndarray, first: np.ndarray) -> None:
    """The lowest of values (P,) by key, as `add_by_key`."""
    first[:] = -1
    for n in range(len(key)):
        if first[key[n]] < 0:
            first[key[n]] = n
        table[key[n]] = min(table[key[n]], values[n])


@compiled
def inside(
    x: np.ndarray, y: np.ndarray, points: np.ndarray, x_low: float, y_low: float, x_high: float, y_high: float
) -> np.ndarray:
    """Those of some points (n,) that lie in a half-open box."""
    found = np.empty(len(points), np.int64)
    num = 0
    for point in points:
        found[num] = point
        num += (x[point] >= x_low) & (x[point] < x_high) & (y[point] >= y_low) & (y[point] < y_high)
    return found[:num].copy()


@compiled
def class_counts(label: np.ndarray) -> np.ndarray:
    """Points (P,) int8 by class index, up to the last class that there is: (K,) int64; what is below 0 is left out."""
    counts = np.zeros(256, np.int64)
    for n in range(len(label)):
        counts[label[n] + 128] += 1
    end = 256
    while end > 128 and not counts[end - 1]:
        end -= 1
    return counts[128:end].copy()


@compiled
def moments(values: np.ndarray) -> tuple[int, float, float]:
    """Number, sum and sum of squares in float64 of values (P,) of any type."""
    # Two sums each, that none waits for the one before; an odd last value goes to the first.
    total, squares, other_total, other_squares = 0.0, 0.0, 0.0, 0.0
    for n in range(0, len(values) - 1, 2):
        one, other = float(values[n]), float(values[n + 1])
        total += one
        squares += one * one
        other_total += other
        other_squares += other * other
    if len(values) % 2:
        last = float(values[-1])
        total += last
        squares += last * last
    return len(values), total + other_total, squares + other_squares


@compiled
def cell_keys(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, horizontal: float, vertical: float,
    low: tuple[int, int, int], span: tuple[int, int, int], key: np.ndarray,
) -> None:  # fmt: skip
    """Numbers ≥ 0 of the cells that points (P,) lie in, in the order of x, y, z, into `key` (P,).

    Args:
        x, y, z: (P,) float64; horizontal, vertical: a cell's edges.
        low, span: the first cell along each axis, and how many there are.
    """
    for n in range(len(x)):
        i, j = np.int64(np.floor(x[n] / horizontal)) - low[0], np.int64(np.floor(y[n] / horizontal)) - low[1]
        key[n] = (i * span[1] + j) * span[2] + np.int64(np.floor(z[n] / vertical)) - low[2]


@compiled
def surely_between(first: int, end: int, size: float) -> tuple[float, float]:
    """Bounds between which every x has first <= floor(x / size) < end, however x / size is rounded.

    A division is dear, and neighbouring points mostly share a square. So far from 0 that rounding counts: none.
    """
    if abs(first) > 1 << 40 or abs(end) > 1 << 40:
        return np.inf, -np.inf
    return (first + 1 / 1024) * size, (end - 1 / 1024) * size


@compiled
def _squares_reached_by(
    x: np.ndarray, y: np.ndarray, begin: int, voxel: float, first: tuple[int, int], size: int,
    before: int, after: int, low: tuple[int, int], width: int, place: np.ndarray, key: np.ndarray,
) -> int:  # fmt: skip
    """`squares_reached` for points from a number on, into arrays with room for nine squares a point; how many."""
    x_low = y_low = np.inf
    x_high = y_high = -np.inf
    i = j = own = np.int64(0)
    num = 0
    for n in range(len(x)):
        # In the square of the last, and far from all others?
        if x_low < x[n] < x_high and y_low < y[n] < y_high:
            place[num], key[num] = begin + n, own
            num += 1
            continue
        u = np.int64(np.floor(x[n] / voxel)) - first[0] - i * size
        v = np.int64(np.floor(y[n] / voxel)) - first[1] - j * size
        if n == 0 or u < 0 or u >= size or v < 0 or v >= size:
            i, u = i + u // size, u % size
            j, v = j + v // size, v % size
            own = 2 * ((i - low[0]) * width + j - low[1])
            x_low, x_high = surely_between(
                first[0] + i * size + after, first[0] + (i + 1) * size - before, voxel
            )
            y_low, y_high = surely_between(
                first[1] + j * size + after, first[1] + (j + 1) * size - before, voxel
            )
        left, right, below, above = u < after, u >= size - before, v < after, v >= size - before
        # All nine are written and those that count are kept: no branch that the processor could guess wrong.
        for di in range(-1, 2):
            for dj in range(-1, 2):
                place[num], key[num] = begin + n, own + 2 * (di * width + dj) + (di != 0 or dj != 0)
                reaches_x = di == 0 or (di < 0 and left) or (di > 0 and right)
                reaches_y = dj == 0 or (dj < 0 and below) or (dj > 0 and above)
                num += int(reaches_x & reaches_y)
    return num


@compiled
def squares_reached(
    x: np.ndarray, y: np.ndarray, voxel: float, first: tuple[int, int], size: int, before: int, after: int,
    low: tuple[int, int], width: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Points and the squares that need them: indices (n,) int64, and for each a square's key (n,) int64.

    The key is 2 ((i - low_i) width + j - low_j), and 1 more where the point lies not in the square but around it.

    Args:
        x, y: (P,) float64; voxel: a voxel's edge.
        first: voxel at which square (0, 0) begins; size: voxels along a square.
        before, after: voxels around a square that it needs, towards smaller and larger coordinates, at most `size`.
        low, width: of a range that holds all squares reached.
    """
    room = len(x) + len(x) // 2 + 9 * _POINTS_AT_ONCE
    place, key = np.empty(room, np.int64), np.empty(room, np.int64)
    num = 0
    for begin in range(0, len(x), _POINTS_AT_ONCE):
        end = min(begin + _POINTS_AT_ONCE, len(x))
        if num + 9 * _POINTS_AT_ONCE > len(place):
            place, key = np.append(place, np.empty_like(place)), np.append(key, np.empty_like(key))
        some = x[begin:end], y[begin:end]
        num += _squares_reached_by(
            *some, begin, voxel, first, size, before, after, low, width, place[num:], key[num:]
        )
    return place[:num], key[:num]


@compiled
def coded_runs(
    x: np.ndarray, y: np.ndarray, code: np.ndarray, voxel: float, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points in turn in one cell and with one class code: (R, 3) int64 cell and code, and how many (R,) int64.

    Args:
        x, y: (P,) float64; code: (P,) uint8; voxel: a voxel's edge; size: voxels along a cell.
    """
    runs, first = np.empty((len(x), 3), np.int64), np.empty(len(x) + 1, np.int64)
    i = j = np.int64(0)
    x_low = y_low = np.inf
    x_high = y_high = -np.inf
    num, last = 0, -1
    for n in range(len(x)):
        if not (x_low < x[n] < x_high and y_low < y[n] < y_high):
            u, v = np.int64(np.floor(x[n] / voxel)) - i * size, np.int64(np.floor(y[n] / voxel)) - j * size
            if n == 0 or u < 0 or u >= size or v < 0 or v >= size:
                i, j, last = i + u // size, j + v // size, -1
                x_low, x_high = surely_between(i * size, (i + 1) * size, voxel)
                y_low, y_high = surely_between(j * size, (j + 1) * size, voxel)
        # Written in any case, and kept where a run begins: classes change too often to be guessed right.
        runs[num, 0], runs[num, 1], runs[num, 2], first[num] = i, j, code[n], n
        num += code[n] != last
        last = code[n]
    first[num] = len(x)
    return runs[:num].copy(), np.diff(first[: num + 1])


@compiled
def square_runs(x: np.ndarray, y: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Points in turn in one square of an edge: (R, 2) int64 squares, and the first point of each run (R,) int64."""
    runs, first = np.empty((len(x), 2), np.int64), np.empty(len(x), np.int64)
    x_low = y_low = np.inf
    x_high = y_high = -np.inf
    num = 0
    for n in range(len(x)):
        if x_low < x[n] < x_high and y_low < y[n] < y_high:
            continue
        i, j = np.int64(np.floor(x[n] / size)), np.int64(np.floor(y[n] / size))
        if num == 0 or runs[num - 1, 0] != i or runs[num - 1, 1] != j:
            runs[num, 0], runs[num, 1], first[num] = i, j, n
            num += 1
            x_low, x_high = surely_between(i, i + 1, size)
            y_low, y_high = surely_between(j, j + 1, size)
    return runs[:num].copy(), first[:num].copy()


@compiled
def less_by_square(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, size: float,
    low: tuple[int, int], width: int, key: np.ndarray, value: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """z (P,) less the value of the square of an edge that each point lies in (P,).

    Args:
        x, y, z: (P,) float64; size: a square's edge.
        key: (S,) int64, (i - low_i) width + j - low_j of each square (i, j), rising; value: (S,) float64.
    """
    found = np.empty(len(x))
    x_low = y_low = np.inf
    x_high = y_high = -np.inf
    taken = 0.0
    for n in range(len(x)):
        if not (x_low < x[n] < x_high and y_low < y[n] < y_high):
            i, j = np.int64(np.floor(x[n] / size)), np.int64(np.floor(y[n] / size))
            taken = value[np.searchsorted(key, (i - low[0]) * width + j - low[1])]
            x_low, x_high = surely_between(i, i + 1, size)
            y_low, y_high = surely_between(j, j + 1, size)
        found[n] = z[n] - taken
    return found


@compiled
def local_positions(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, rows: np.ndarray, x_origin: float, y_origin: float,
    metres: tuple[float, float], position: np.ndarray,
) -> float:  # fmt: skip
    """Coordinates of some points (n,), n ≥ 1, in metres from an origin, into (3, n) float32; z of the origin.

    Args:
        x, y, z: (P,) float64; rows: (n,).
        x_origin, y_origin: of the origin, which lies as low as the lowest of the points.
        metres: in a unit, horizontally and vertically.
    """
    z_origin = z[rows[0]]
    for row in rows:
        z_origin = min(z_origin, z[row])
    for n in range(len(rows)):
        row = rows[n]
        position[0, n] = (x[row] - x_origin) * metres[0]
        position[1, n] = (y[row] - y_origin) * metres[0]
        position[2, n] = (z[row] - z_origin) * metres[1]
    return z_origin
