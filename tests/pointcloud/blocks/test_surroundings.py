"""What surrounds a point, against the formulas written out, and under what augmentation does to a block."""

from __future__ import annotations

import numpy as np
import pytest

from pointcloud.blocks.surroundings import ECHOES, SHAPE, shape, shape_and_echoes

POINTS = np.random.default_rng(5).uniform((0, 0, 0), (7, 5, 3), (400, 3))
RETURNS = np.random.default_rng(6).integers(1, 4, (2, 400))


@pytest.mark.parametrize("radius", [0.5, 1.0, 20.0])
def test_shape_is_that_of_the_formulas(radius: float) -> None:
    found = shape(POINTS, radius)
    assert found.shape == (400, len(SHAPE))
    assert found.dtype == np.float32
    for i in range(0, 400, 37):
        offset = POINTS - POINTS[i]
        sphere = offset[(offset**2).sum(axis=1) <= radius**2]
        cylinder = offset[(offset[:, :2] ** 2).sum(axis=1) <= radius**2, 2]
        expected = np.zeros(8)
        if len(sphere) >= 3:
            (low, middle, high), vectors = np.linalg.eigh(np.cov(sphere.T, bias=True))
            expected[:5] = [
                (high - middle) / high, (middle - low) / high, low / high, 1 - abs(vectors[2, 0]),
                np.sqrt(max(low, 0) / (low + middle + high)),
            ]  # fmt: skip
        expected[5] = sphere[:, 2].mean() / radius
        expected[6:] = np.tanh([-cylinder.min() / radius, cylinder.max() / radius])
        np.testing.assert_allclose(found[i], expected, atol=1e-5)


def test_echoes_are_shares_of_the_sphere() -> None:
    number, count = RETURNS.min(axis=0), RETURNS.max(axis=0)
    shapes, found = shape_and_echoes(POINTS, number, count, 1.0)
    np.testing.assert_array_equal(shapes, shape(POINTS, 1.0))
    assert found.shape == (400, len(ECHOES))
    for i in range(0, 400, 37):
        sphere = ((POINTS - POINTS[i]) ** 2).sum(axis=1) <= 1.0
        expected = [(count[sphere] > 1).mean(), (number < count)[sphere].mean()]
        np.testing.assert_allclose(found[i], expected, atol=1e-6)


def test_turning_mirroring_and_the_order_of_the_points_change_nothing() -> None:
    angle = 0.7
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    order = np.random.default_rng(7).permutation(400)
    moved = (POINTS @ turn * [-1, 1, 1] + [3.0, 40.0, -5.0])[order]
    np.testing.assert_allclose(shape(moved, 1.3), shape(POINTS, 1.3)[order], atol=1e-4)


def test_a_plane_a_line_and_a_point_alone() -> None:
    grid = np.stack(np.meshgrid(np.arange(9.0), np.arange(9.0)), axis=-1).reshape(-1, 2)
    flat = dict(zip(SHAPE, shape(np.column_stack([grid, np.zeros(81)]), 3.0)[40], strict=True))
    assert flat["planarity"] == pytest.approx(1, abs=1e-5)
    assert flat["verticality"] == pytest.approx(0, abs=1e-5)
    wall = dict(
        zip(SHAPE, shape(np.column_stack([grid[:, :1], np.zeros(81), grid[:, 1:]]), 3.0)[40], strict=True)
    )
    assert wall["verticality"] == pytest.approx(1, abs=1e-5)
    line = dict(zip(SHAPE, shape(np.arange(9.0)[:, None] * [1.0, 0, 0], 3.0)[4], strict=True))
    assert line["linearity"] == pytest.approx(1, abs=1e-5)
    assert (shape(np.zeros((5, 3)), 1.0) == 0).all()
    assert (shape(np.ones((1, 3)), 1.0) == 0).all()
    assert shape(np.empty((0, 3)), 1.0).shape == (0, 8)
