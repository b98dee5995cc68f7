"""What stands for an attribute that some scans of a dataset lack."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pointcloud.blocks.features import FeatureStatistics
from pointcloud.dataset.filling import fill, values_to_fill
from tests.support.clouds import cut, make_cloud

STATISTICS = FeatureStatistics({"height": 1.0, "intensity": 812.4}, {"height": 1.0, "intensity": 3.0})


def test_only_what_some_scans_lack_is_filled() -> None:
    given = [{"intensity", "return_number", "red"}, {"return_number"}, {"return_number", "red"}]
    assert values_to_fill(given, STATISTICS) == {"intensity": 812, "red": 32768}
    assert values_to_fill([{"intensity"}], STATISTICS) == {}


def test_what_a_block_has_it_keeps() -> None:
    (whole, *_) = cut(make_cloud())
    bare = replace(whole, attributes={"intensity": whole.attributes["intensity"]})
    found = fill(bare, {"intensity": 7, "number_of_returns": 1})
    assert found.attributes["intensity"] is whole.attributes["intensity"]
    np.testing.assert_array_equal(found.attributes["number_of_returns"], np.ones(len(whole)))
    assert fill(whole, {"intensity": 7}) is whole
