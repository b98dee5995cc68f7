"""Heights count from the lowest point in the ground cells around a point."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pointcloud.grid.height import height_above, lowest_points
from tests.support.clouds import make_cloud

corners = st.sampled_from([(0.0, 0.0, 0.0), (652_003.3, 6.6e6, 80.0), (-12.5, -5_000_001.25, -40.0)])


@given(seed=st.integers(0, 50), window=st.sampled_from([3.0, 9.0, 60.0]), corner=corners)
def test_height_counts_from_the_lowest_point_nearby(
    seed: int, window: float, corner: tuple[float, float, float]
) -> None:
    xyz = make_cloud(60, seed, corner).xyz
    cell = np.floor(xyz[:, :2] / (window / 3))
    near = (np.abs(cell[:, None] - cell[None]) <= 1).all(axis=2)
    lowest = np.array([xyz[row, 2].min() for row in near])
    np.testing.assert_array_equal(height_above(xyz, window, *lowest_points(xyz, window)), xyz[:, 2] - lowest)


def test_no_points_no_heights() -> None:
    assert height_above(np.empty((0, 3)), 9.0, np.empty((0, 2), np.int64), np.empty(0)).shape == (0,)


def test_cells_without_their_lowest_point_count_from_their_neighbours() -> None:
    """As where the lowest point of a cell was an outlier: the others of that cell decide."""
    xyz = np.array([[1.0, 1.0, 5.0], [4.0, 1.0, 7.0], [13.0, 1.0, 2.0]])
    cells, lowest = lowest_points(xyz, 9.0)
    assert cells.tolist() == [[0, 0], [1, 0], [4, 0]]
    assert height_above(xyz, 9.0, cells, lowest).tolist() == [0.0, 2.0, 0.0]
