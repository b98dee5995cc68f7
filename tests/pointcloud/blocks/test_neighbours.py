"""Scans side by side are found, whatever their sizes and however many there are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pointcloud.blocks.common_crs import find_common
from pointcloud.blocks.neighbours import find_neighbours, reading_order
from pointcloud.cloud import ScanHeader
from tests.support.clouds import SMALL

HEADER = ScanHeader(
    uri="", format="LAS", num_points=1, bounds=None, crs=None, attributes=(), resolution=None, dimensions=()
)


def headers_of(boxes: np.ndarray) -> dict[str, ScanHeader]:
    """Of boxes (N, 2, 2), smallest and largest x and y."""
    flat = {f"{n:05}": np.column_stack([box, [0.0, 1.0]]) for n, box in enumerate(boxes)}
    return {name: replace(HEADER, bounds=bounds) for name, bounds in flat.items()}


def by_looking_at_all(boxes: np.ndarray, reach: float) -> dict[str, list[str]]:
    names = [f"{n:05}" for n in range(len(boxes))]
    low, high = boxes[:, 0], boxes[:, 1]
    near = [((low <= high[n] + reach) & (high >= low[n] - reach)).all(axis=1) for n in range(len(boxes))]
    return {
        name: [names[other] for other in np.flatnonzero(near[n]) if other != n]
        for n, name in enumerate(names)
    }


def drawn(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 400, (120, 2))
    return np.stack([low, low + rng.uniform(0, 30, (120, 2))], axis=1)


def tiles() -> np.ndarray:
    low = np.stack(np.meshgrid(np.arange(12), np.arange(9)), axis=-1).reshape(-1, 2) * 20.0
    return np.stack([low, low + 20.0], axis=1)


def with_one_that_lies() -> np.ndarray:
    boxes = drawn(7)
    boxes[5] = [[-1e7, -1e7], [1e7, 1e7]]
    boxes[6] = boxes[6][::-1]  # largest and smallest exchanged
    return boxes


@pytest.mark.parametrize(
    "boxes",
    [drawn(0), drawn(1), tiles(), with_one_that_lies(), np.zeros((5, 2, 2)), drawn(2)[:1]],
    ids=["drawn", "others", "tiles", "one lies", "in one place", "alone"],
)
def test_the_neighbours_are_those_that_looking_at_all_pairs_finds(boxes: np.ndarray) -> None:
    headers = headers_of(boxes)
    (common,) = find_common(headers)
    assert find_neighbours(headers, SMALL) == by_looking_at_all(boxes, common.reach(SMALL))


def test_scans_of_which_nothing_is_known_have_no_neighbours() -> None:
    headers = headers_of(tiles()) | {"room": HEADER, "nan": replace(HEADER, bounds=np.full((2, 3), np.nan))}
    found = find_neighbours(headers, SMALL)
    assert found["room"] == found["nan"] == []
    assert reading_order(headers)[-2:] == ["nan", "room"]
    assert not any(find_neighbours(headers, replace(SMALL, across_scans=False)).values())
