"""Between voxels, the nearer the heavier: the formula written out within a cell, nothing across its edge."""

from __future__ import annotations

import numpy as np

from pointcloud.grid.voxels import cells_of
from pointcloud.labelling.interpolation import interpolate

C = 3
CELL_VOXELS = 5


def places(seed: int, size: tuple[float, float]) -> tuple[np.ndarray, ...]:
    """Points, the voxel of each as a row, the points that stand for the voxels, their places and logits."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-8, 8, (700, 3)) * [1, 1, 0.2]
    voxel, first, row = np.unique(cells_of(xyz, size), axis=0, return_index=True, return_inverse=True)
    return xyz, row.ravel(), xyz[first], voxel, rng.normal(0, 3, (len(voxel), C)).astype(np.float32)


def test_the_three_nearest_among_the_voxels_around_in_one_cell() -> None:
    size = (1.0, 0.5)  # as where heights are in another unit
    xyz, row, centres, voxel, logits = places(0, size)
    found = interpolate(xyz, row, centres, voxel, size, CELL_VOXELS, logits)
    assert found.shape == (len(xyz), C)
    assert found.dtype == np.float32
    cell, cut_off = voxel[:, :2] // CELL_VOXELS, 0
    for point in range(len(xyz)):
        around = np.abs(voxel - voxel[row[point]]).max(axis=1) <= 1
        same = (cell == cell[row[point]]).all(axis=1)
        cut_off += int((around & ~same).any())
        near = np.flatnonzero(around & same)
        squared = (((centres[near] - xyz[point]) / [1.0, 1.0, 0.5]) ** 2).sum(axis=1)
        three = np.argsort(squared)[:3]
        weights = 1 / np.maximum(squared[three], 1e-16)
        expected = weights @ logits[near[three]].astype(np.float64) / weights.sum()
        np.testing.assert_allclose(found[point], expected, rtol=1e-5, atol=1e-5)
    assert cut_off > 50, "cells end between points"


def test_a_point_that_stands_for_its_voxel_has_the_voxel_s_logits() -> None:
    size = (1.0, 1.0)
    _, _, centres, voxel, logits = places(1, size)
    found = interpolate(centres, np.arange(len(centres)), centres, voxel, size, CELL_VOXELS, logits)
    np.testing.assert_allclose(found, logits, rtol=1e-6)


def test_a_voxel_alone_gives_all_its_points_its_logits() -> None:
    xyz = np.array([[0.1, 0.1, 0.1], [0.9, 0.2, 0.8]])
    logits = np.array([[1.0, -2.0, 3.0]], np.float32)
    found = interpolate(
        xyz, np.zeros(2, np.int64), xyz[:1], np.zeros((1, 3), np.int64), (1.0, 1.0), CELL_VOXELS, logits
    )
    np.testing.assert_allclose(found, np.repeat(logits, 2, axis=0), rtol=1e-6)


def test_a_point_at_the_foot_of_a_wall_is_not_the_ground_s() -> None:
    # One voxel holds both, and a point of the ground stands for it; the wall goes on above.
    centres = np.array([[0.5, 0.5, 0.1], [0.9, 0.5, 1.1]])
    logits = np.array([[4.0, 0.0], [0.0, 5.0]], np.float32)
    voxel = cells_of(centres, (1.0, 1.0))
    wall = np.array([[0.95, 0.5, 0.8]])
    found = interpolate(wall, np.zeros(1, np.int64), centres, voxel, (1.0, 1.0), CELL_VOXELS, logits)
    assert found.argmax() == 1


def test_no_point_is_no_logits() -> None:
    _, _, centres, voxel, logits = places(2, (1.0, 1.0))
    none = interpolate(
        np.empty((0, 3)), np.empty(0, np.int64), centres, voxel, (1.0, 1.0), CELL_VOXELS, logits
    )
    assert none.shape == (0, C)
