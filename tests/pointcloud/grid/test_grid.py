"""Squares of the ground: every point in its own, and around each that is near enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pointcloud.grid.grid import squares_of
from pointcloud.grid.kernels import class_counts, moments, radix_group, square_runs

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


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 62).flatmap(lambda bits: st.lists(st.integers(0, 2**bits), max_size=50)))
def test_groups_are_those_of_a_stable_sort(keys: list[int]) -> None:
    key = np.array(keys, np.int64)
    order, starts = radix_group(key, int(key.max(initial=0)).bit_length())
    np.testing.assert_array_equal(order, np.argsort(key, kind="stable"))
    np.testing.assert_array_equal(starts, np.unique(key[order], return_index=True)[1])


@pytest.mark.parametrize("labels", [[], [-1, -1], [0], [3, -1, 0, 3], [-128, 127, 127]], ids=str)
def test_classes_are_counted_up_to_the_last(labels: list[int]) -> None:
    expected = [labels.count(index) for index in range(max([-1, *labels]) + 1)]
    assert class_counts(np.array(labels, np.int8)).tolist() == expected


def test_moments_of_small_types_do_not_run_over() -> None:
    values = np.full(1000, 255, np.uint8)
    assert moments(values) == (1000, 255_000.0, 65_025_000.0)


def test_runs_begin_where_the_square_changes() -> None:
    x = np.array([0.1, 0.9, 1.1, 0.2, 0.3, -0.1])
    runs, first = square_runs(x, np.zeros(6), 1.0)
    assert first.tolist() == [0, 2, 3, 5]
    assert runs[:, 0].tolist() == [0, 1, 0, -1]
