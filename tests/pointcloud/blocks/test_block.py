"""A block: its points can be chosen and drawn again, and its labels are counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.support.clouds import cut, make_cloud


def test_points_chosen_take_all_that_belongs_to_them_along() -> None:
    block = cut(make_cloud(300))[0]
    rows = np.array([5, 0, 5])
    chosen = block[rows]
    assert len(chosen) == 3
    for name in ("position", "height", "label", "is_core", "point_index", "voxel"):
        np.testing.assert_array_equal(getattr(chosen, name), getattr(block, name)[rows])
    for name, values in block.attributes.items():
        np.testing.assert_array_equal(chosen.attributes[name], values[rows])
    assert (chosen.tile, chosen.cell, chosen.scan) == (block.tile, block.cell, block.scan)


def test_only_labelled_points_of_the_core_are_counted() -> None:
    block = cut(make_cloud(300))[0]
    assert block.label is not None
    expected = np.bincount(block.label[block.is_core & (block.label >= 0)])
    np.testing.assert_array_equal(block.core_counts, expected)
    assert replace(block, label=None).core_counts.shape == (0,)
