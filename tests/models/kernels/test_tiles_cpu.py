"""The two operations written in LLVM IR against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from models.kernels.tiles_cpu import TILE_ROWS, TILE_VECTORS, VECTOR_BYTES, keep_below, multiply_tile

CHANNELS = 7


@njit
def multiply(out, x, y, start, num_channels):
    multiply_tile(out, x, 0, y, 0, start, 0, num_channels)


@njit
def keep(x, y, start, num_channels, column, limits, kept, columns, ends, full):
    keep_below(x, 0, y, 0, start, 0, num_channels, column, limits, 0, kept, columns, ends, full)


def operands(dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x (channels, rows), y (channels, width), start (width,), and the tile of products (rows, width)."""
    width = TILE_VECTORS * VECTOR_BYTES // np.dtype(dtype).itemsize
    rng = np.random.default_rng(5)
    x, y = (
        rng.normal(size=(CHANNELS, TILE_ROWS)).astype(dtype),
        rng.normal(size=(CHANNELS, width)).astype(dtype),
    )
    start = rng.normal(size=width).astype(dtype)
    return x, y, start, start + x.T.astype(float) @ y


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_tile_of_products(dtype: type) -> None:
    x, y, start, expected = operands(dtype)
    out = np.empty(expected.size, dtype)
    multiply(out, x.ravel(), y.ravel(), start, CHANNELS)
    np.testing.assert_allclose(out.reshape(expected.shape), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_below_the_limit_is_kept_in_order(dtype: type) -> None:
    x, y, start, expected = operands(dtype)
    width, room = expected.shape[1], 4 * expected.shape[1]
    limits = np.full(TILE_ROWS, 0.5, dtype)
    limits[0] = -np.inf  # nothing of the first row, all of the last
    limits[-1] = np.inf
    kept, columns = np.empty(TILE_ROWS * room, dtype), np.empty(TILE_ROWS * room, np.int32)
    begins = np.arange(TILE_ROWS) * room
    ends, full = begins.copy(), begins + room
    full[-1] = begins[-1] + width - 1
    below = [np.flatnonzero(row < limit) for row, limit in zip(expected, limits, strict=True)]
    keep(x.ravel(), y.ravel(), start, CHANNELS, 100, limits, kept, columns, ends, full)
    assert (ends - begins).tolist() == [len(row) for row in below]
    for row, begin, end in zip(range(TILE_ROWS), begins, ends, strict=True):
        assert columns[begin:end].tolist() == (100 + below[row]).tolist()
        np.testing.assert_allclose(kept[begin:end], expected[row, below[row]], rtol=1e-5, atol=1e-5)
    assert limits[-1] == -np.inf, "a row that passes its end takes no more"
    assert (limits[1:-1] == dtype(0.5)).all()
