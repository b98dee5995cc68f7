"""Parts of the GPU's kernels: a tile of distances, float32 as integers that compare alike, a sort in registers."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# mypy: check-untyped-defs=False
# Triton finds the types of what it compiles; docstrings tell them.

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile_distances(x, rows, row_exists, columns, column_exists, num_channels, BLOCK_C: tl.constexpr):
    """|x_j|² − 2 x_i·x_j, which orders a row as |x_i − x_j|² does. (rows, columns) float32, NaN as infinity."""
    products = tl.zeros([rows.shape[0], columns.shape[0]], tl.float32)
    squares = tl.zeros([columns.shape[0]], tl.float32)
    for first in range(0, num_channels, BLOCK_C):
        channel = first + tl.arange(0, BLOCK_C)
        exists = channel < num_channels
        x_i = tl.load(
            x + rows[:, None].to(tl.int64) * num_channels + channel[None, :],
            mask=row_exists[:, None] & exists[None, :],
            other=0.0,
        )
        x_j = tl.load(
            x + columns[None, :].to(tl.int64) * num_channels + channel[:, None],
            mask=exists[:, None] & column_exists[None, :],
            other=0.0,
        )
        products = tl.dot(x_i, x_j, products, input_precision="ieee")
        squares += tl.sum(x_j * x_j, axis=0)
    distances = squares[None, :] - 2.0 * products
    return tl.where(distances == distances, distances, float("inf"))


@triton.jit
def to_ordered(distances):
    """Bits of float32 as int32 of the same order."""
    bits = distances.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def from_ordered(ordered):
    """Inverse of `to_ordered`."""
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def sorted_rows(keys, ROWS: tl.constexpr, LOG_WIDTH: tl.constexpr):
    """Each row of keys (ROWS, 2^LOG_WIDTH) int64, ascending: a bitonic sort, as Triton's own.

    That one finds an element's partner by a reduction which Triton's interpreter does in Python, element by
    element; this one by a sum.
    """
    cube = tl.reshape(keys, [ROWS] + [2] * LOG_WIDTH)
    place = tl.reshape(tl.arange(0, 1 << LOG_WIDTH), [1] + [2] * LOG_WIDTH)
    for stage in tl.static_range(1, LOG_WIDTH + 1):
        for bit in tl.static_range(stage - 1, -1, -1):
            partner = tl.sum(cube, axis=LOG_WIDTH - bit, keep_dims=True) - cube
            wants_larger = ((place >> stage) ^ (place >> bit)) & 1
            cube = tl.where((cube > partner) != (wants_larger != 0), partner, cube)
    return tl.reshape(cube, [ROWS, 1 << LOG_WIDTH])
