"""Compiled loops give what NumPy gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointcloud.grid.kernels import (
    cell_keys,
    class_counts,
    coded_runs,
    inside,
    local_positions,
    moments,
    nearest_to_centre,
    radix_group,
    square_runs,
    surely_between,
)

RNG = np.random.default_rng(0)


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


def test_the_point_nearest_to_the_centre_stands_for_a_voxel() -> None:
    x, y, z = np.array([[0.1, 0.4, 1.9, 1.5], [0.1, 0.5, 0.2, 0.5], [0.1, 0.6, 0.3, 0.5]]).copy()
    chosen = nearest_to_centre(np.array([0, 1, 2, 3]), np.array([0, 2]), x, y, z, 1.0, 1.0)
    assert chosen.tolist() == [1, 3]


def test_of_equally_near_points_the_smallest_coordinates_decide() -> None:
    x, y, z = np.array([[0.6, 0.4, 0.4], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]).copy()
    assert nearest_to_centre(np.array([0, 2, 1]), np.array([0]), x, y, z, 1.0, 1.0).tolist() == [1]


def test_cells_are_numbered_in_the_order_of_x_y_z() -> None:
    xyz = RNG.uniform(-5, 5, (200, 3))
    cell = np.floor(xyz / [0.5, 0.5, 2.0]).astype(np.int64)
    low = cell.min(axis=0)
    span = np.ptp(cell, axis=0) + 1
    key = np.empty(len(xyz), np.int64)
    cell_keys(*xyz.T.copy(), 0.5, 2.0, tuple(low.tolist()), tuple(span.tolist()), key)
    np.testing.assert_array_equal(key, np.ravel_multi_index(tuple((cell - low).T), tuple(span)))


@pytest.mark.parametrize("size", [0.1, 0.3, 10.0, 1 / 3])
@pytest.mark.parametrize("first", [0, -7, 66_000_001])
def test_what_is_surely_between_is_between(size: float, first: int) -> None:
    low, high = surely_between(first, first + 1, size)
    x = np.linspace(low, high, 1001)[1:-1]
    assert (np.floor(x / size) == first).all()


def test_points_in_a_half_open_box() -> None:
    x, y = np.array([0.0, 1.0, 0.5, 0.5]), np.array([0.0, 0.5, 1.0, 0.5])
    assert inside(x, y, np.arange(4), 0.0, 0.0, 1.0, 1.0).tolist() == [0, 3]


def test_runs_of_one_cell_and_code() -> None:
    x, code = np.array([0.1, 0.2, 0.3, 5.0, 5.1]), np.array([2, 2, 6, 6, 6], np.uint8)
    cells, counts = coded_runs(x, np.zeros(5), code, 0.5, 4)
    assert cells.tolist() == [[0, 0, 2], [0, 0, 6], [2, 0, 6]]
    assert counts.tolist() == [2, 1, 2]


def test_positions_count_from_the_lowest_of_the_points() -> None:
    xyz = RNG.uniform(0, 9, (50, 3))
    rows = np.array([3, 1, 40])
    position = np.empty((3, 3), np.float32)
    z = local_positions(*xyz.T.copy(), rows, 4.0, 5.0, (0.3, 2.0), position)
    assert z == xyz[rows, 2].min()
    np.testing.assert_allclose(position.T, (xyz[rows] - [4, 5, z]) * [0.3, 0.3, 2.0], rtol=1e-5)
