"""Sums over cells against the exact surroundings, and on clouds of unusual forms."""

from __future__ import annotations

import numpy as np
import pytest

from pointcloud.blocks.pyramid import surroundings_by_cells
from pointcloud.blocks.surroundings import echo_flags, shape, shape_and_echoes

RANDOM = np.random.default_rng(8)


def test_where_each_cell_holds_one_point_the_sphere_is_the_exact_one() -> None:
    # Points near the middles of cells of 0.4 m, as a radius of 1 m has: no two share one.
    cell = np.unique(RANDOM.integers(0, (30, 20, 6), (1500, 3)), axis=0)
    position = ((cell + 0.5) * 0.4 + RANDOM.uniform(-0.1, 0.1, cell.shape)).astype(np.float32)
    returns = RANDOM.integers(1, 4, (2, len(position)))
    number, count = returns.min(axis=0), returns.max(axis=0)
    shapes, echoes = surroundings_by_cells(position, echo_flags(number, count), 1.0)
    exact_shapes, exact_echoes = shape_and_echoes(position, number, count, 1.0)
    assert shapes.dtype == echoes.dtype == np.float32
    np.testing.assert_allclose(shapes[:, :6], exact_shapes[:, :6], atol=2e-5)
    np.testing.assert_allclose(echoes, exact_echoes, atol=1e-6)


def test_on_a_surface_with_a_wall_it_is_close_to_the_exact_one() -> None:
    ground = np.c_[RANDOM.uniform(-20, 20, (6000, 2)), RANDOM.normal(0, 0.02, 6000)]
    roof = np.c_[RANDOM.uniform(0, 12, (2000, 2)), np.full(2000, 6.0)]
    position = np.concatenate([ground, roof])
    for radius in (2.0, 4.0, 8.0):
        channels, _ = surroundings_by_cells(position, None, radius)
        exact = shape(position, radius)
        assert np.abs(channels - exact).mean() < 0.1
        for channel in (4, 5, 6):  # roughness, depth, height below
            assert np.corrcoef(channels[:, channel], exact[:, channel])[0, 1] > 0.9


def test_depth_and_heights_are_the_points_own() -> None:
    position = np.array([[0.05, 0.05, 0.0], [0.1, 0.1, 0.1], [0.15, 0.15, 0.3]])
    channels, _ = surroundings_by_cells(position, None, 1.0)
    np.testing.assert_allclose(channels[:, 5], position[:, 2].mean() - position[:, 2], atol=1e-6)
    np.testing.assert_allclose(channels[:, 6], np.tanh(position[:, 2]), atol=1e-6)
    np.testing.assert_allclose(channels[:, 7], np.tanh(0.3 - position[:, 2]), atol=1e-6)


@pytest.mark.parametrize("radius", [0.5, 32.0])
def test_no_and_few_points_and_points_kilometres_apart(radius: float) -> None:
    assert surroundings_by_cells(np.empty((0, 3)), None, radius)[0].shape == (0, 8)
    one, _ = surroundings_by_cells(np.zeros((1, 3)), None, radius)
    assert (one == 0).all()
    apart, _ = surroundings_by_cells(np.array([[0, 0, 0], [9000.0, 0, 50], [0, 9000, -50]]), None, radius)
    assert (apart == 0).all()
    tower, _ = surroundings_by_cells(np.zeros((5000, 3)), None, radius)
    assert np.isfinite(tower).all()


def test_the_order_of_the_points_changes_nothing_that_counts() -> None:
    position = RANDOM.uniform((0, 0, 0), (12, 9, 4), (700, 3)).astype(np.float32)
    order = RANDOM.permutation(700)
    here, _ = surroundings_by_cells(position, None, 2.0)
    there, _ = surroundings_by_cells(position[order], None, 2.0)
    np.testing.assert_allclose(there, here[order], atol=1e-5)
