"""Squares of the ground: every point in its own, and around each that is near enough."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pointcloud.grid.grid import squares_of

coordinates = arrays(np.float64, st.tuples(st.integers(1, 40), st.just(3)), elements=st.floats(-60, 60))


@settings(max_examples=60, deadline=None)
@given(
    coordinates,
    st.integers(1, 6),
    st.integers(0, 6),
    st.integers(0, 6),
    st.integers(-3, 3),
    st.sampled_from([0.25, 0.3]),
)
def test_a_square_has_its_own_points_and_those_around_it(
    xyz: np.ndarray, size: int, before: int, after: int, first: int, voxel: float
) -> None:
    before, after = min(before, size), min(after, size)
    found = {square: (own.tolist(), near.tolist()) for square, own, near in squares_of(
        xyz, voxel, (first, -first), size, before, after
    )}  # fmt: skip
    cell = np.floor(xyz[:, :2] / voxel).astype(int) - (first, -first)
    assert sorted(n for own, _ in found.values() for n in own) == list(range(len(xyz)))
    corner, end = cell.min(axis=0) // size - 2, cell.max(axis=0) // size + 3
    for i in range(corner[0], end[0]):
        for j in range(corner[1], end[1]):
            low = np.array([i, j]) * size
            own = ((cell >= low) & (cell < low + size)).all(axis=1)
            near = ((cell >= low - before) & (cell < low + size + after)).all(axis=1) & ~own
            expected = np.flatnonzero(own).tolist(), np.flatnonzero(near).tolist()
            assert found.get((i, j), ([], [])) == expected
