"""The sizes that scans are cut in, and what does not fit together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pointcloud.errors import PointloomError, SchemaError
from pointcloud.grid.block_config import BlockConfig
from tests.support.clouds import SMALL, assert_one_sentence


@pytest.mark.parametrize(
    "change",
    [
        {"tile_size_m": 0.0}, {"tile_size_m": -8.0}, {"voxel_size_m": 0.0}, {"halo_m": -1.0}, {"halo_m": 9.0},
        {"ground_window_m": 0.0}, {"overlap": 0}, {"max_points": 63}, {"voxel_size_m": 0.3}, {"overlap": 3},
        {"voxel_size_m": 16.0}, {"tile_size_m": float("nan")}, {"voxel_size_m": float("nan")},
        {"tile_size_m": float("inf")}, {"halo_m": float("nan")}, {"ground_window_m": float("inf")},
        {"noise": "keep"}, {"overlap": float("nan")}, {"max_points": float("nan")}, {"max_points": 100.5},
        {"tile_size_m": 1e300, "voxel_size_m": 1e-300}, {"tile_size_m": 10**400}, {"overlap": 10**400},
    ],
    ids=str,
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PointloomError) as error:
        replace(SMALL, **change)
    assert_one_sentence(error, "")


def test_the_config_comes_back_from_its_record() -> None:
    assert BlockConfig.from_dict(SMALL.to_dict()) == SMALL
    for record in ({"tile_size": 3}, [1], {**SMALL.to_dict(), "tile_size_m": "wide"}):
        with pytest.raises(SchemaError, match="not a block config"):
            BlockConfig.from_dict(record)


def test_a_config_of_before_there_was_a_choice_excludes_noise() -> None:
    record = SMALL.to_dict()
    del record["noise"]
    assert BlockConfig.from_dict(record).excludes_noise
    assert not replace(SMALL, noise="use").excludes_noise
