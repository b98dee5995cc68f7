"""Channels by name: which, in which order, on which scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pyproj import CRS

from pointcloud.blocks.features import (
    FEATURES,
    STANDARDISED,
    FeatureStatistics,
    check_features,
    default_features,
    num_channels,
    point_features,
    standardised_columns,
)
from pointcloud.errors import PointloomError, ScanError, SchemaError
from pointcloud.grid.block_config import BlockConfig
from tests.support.clouds import assert_one_sentence, cut, make_cloud

STATISTICS = FeatureStatistics(
    {"height": 1.0, "intensity": 100.0, "return_number": 2.0, "number_of_returns": 3.0},
    {"height": 2.0, "intensity": 50.0, "return_number": 4.0, "number_of_returns": 8.0},
)
BLOCK = cut(make_cloud(80, colours=True))[0]


def test_channels_come_in_the_order_asked_for() -> None:
    a = BLOCK.attributes
    expected = {
        "rgb": [a[c] / 65535 for c in ("red", "green", "blue")],
        "returns": [(a["return_number"] - 2.0) / 4, (a["number_of_returns"] - 3.0) / 8],
        "height": [(BLOCK.height - 1) / 2],
        "intensity": [(a["intensity"].astype(float) - 100) / 50],
    }
    for order in (list(expected), list(expected)[::-1], ["height", "rgb"], ["intensity"]):
        found = point_features(BLOCK, ("xyz", *order), STATISTICS)
        columns = np.stack([column for feature in order for column in expected[feature]], axis=1)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, columns, rtol=1e-6, atol=1e-6)
        assert num_channels(("xyz", *order)) == 3 + found.shape[1]


@pytest.mark.parametrize("crs", [None, CRS.from_epsg(2263), CRS("EPSG:6539+6360")], ids=["m", "ft m", "ft"])
def test_room_xyz_is_the_place_in_the_scans_box(crs: CRS | None) -> None:
    """Also of a scan in feet, for whatever part of it a block holds."""
    cloud = make_cloud(900, corner=(652_000.0, 6_600_000.0, 40.0), extent=(70.0, 50.0, 9.0), crs=crs)
    low = cloud.xyz.min(axis=0)
    expected = (cloud.xyz - low) / (cloud.xyz.max(axis=0) - low)
    blocks = cut(cloud)
    assert len(blocks) > 3
    for block in blocks:
        found = point_features(block, ("xyz", "room_xyz"), STATISTICS)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[block.point_index], atol=1e-6)
        assert found.min() >= 0
        assert found.max() <= 1


def test_room_xyz_of_a_flat_scan_and_of_one_that_does_not_say_its_extent() -> None:
    flat = cut(make_cloud(80, extent=(20.0, 20.0, 0.0)))[0]
    assert (point_features(flat, ("xyz", "room_xyz"), STATISTICS)[:, 2] == 0).all()
    with pytest.raises(ScanError, match="extent") as error:
        point_features(replace(flat, extent=None), ("xyz", "room_xyz"), STATISTICS)
    assert_one_sentence(error, "'a.laz'")


def test_xyz_alone_leaves_no_other_channel() -> None:
    assert point_features(BLOCK, ("xyz",), STATISTICS).shape == (len(BLOCK), 0)
    assert num_channels(("xyz",)) == 3


def test_standardised_over_its_own_statistics_a_column_has_mean_0_and_deviation_1() -> None:
    columns = standardised_columns(BLOCK)
    assert set(columns) == set(STANDARDISED)
    own = FeatureStatistics(
        {n: float(v.mean()) for n, v in columns.items()}, {n: float(v.std()) for n, v in columns.items()}
    )
    found = point_features(BLOCK, ("xyz", "height", "intensity", "returns"), own)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("feature", [f for f, (needs, _) in FEATURES.items() if needs])
def test_a_missing_attribute_names_the_scan_and_the_feature(feature: str) -> None:
    missing = FEATURES[feature][0][-1]
    poor = replace(BLOCK, attributes={n: v for n, v in BLOCK.attributes.items() if n != missing})
    with pytest.raises(ScanError, match=f"has no {missing}") as error:
        point_features(poor, ("xyz", feature), STATISTICS)
    assert_one_sentence(error, "'a.laz'")
    assert repr(feature) in str(error.value)
    assert point_features(poor, ("xyz", "height"), STATISTICS).shape == (len(BLOCK), 1)


@pytest.mark.parametrize(
    "features", [(), ("rgb",), ("height", "xyz"), ("xyz", "xyz"), ("xyz", "rgb", "rgb"), ("xyz", "colour")]
)
def test_lists_that_cannot_be_used(features: tuple[str, ...]) -> None:
    with pytest.raises(PointloomError, match="expected xyz first") as error:
        check_features(features)
    assert_one_sentence(error, "xyz")


def test_statistics_come_back_from_their_record() -> None:
    assert FeatureStatistics.from_dict(STATISTICS.to_dict()) == STATISTICS
    for record in ({}, {"mean": {}}, [], {"mean": 3, "std": {}}, {"mean": "ab", "std": {}}):
        with pytest.raises(SchemaError, match="not feature statistics"):
            FeatureStatistics.from_dict(record)


RETURNS, COLOURS = {"return_number", "number_of_returns"}, {"red", "green", "blue"}


@pytest.mark.parametrize(
    ("voxel_size_m", "thin", "attributes", "expected"),
    [
        (0.25, True, RETURNS | COLOURS,
         "xyz returns shape_1m shape_2m shape_4m shape_8m echoes_1m echoes_2m echoes_4m"),
        (0.2, True, COLOURS, "xyz rgb shape_1m shape_2m shape_4m shape_8m"),
        (0.5, True, COLOURS, "xyz rgb shape_2m shape_4m shape_8m shape_16m"),
        (1.0, True, RETURNS, "xyz height returns shape_4m shape_8m shape_16m shape_32m echoes_4m echoes_8m echoes_16m"),
        (4.0, True, set(), "xyz height shape_4m shape_8m shape_16m shape_32m"),
        (0.01, True, set(), "xyz shape_0.5m shape_1m shape_2m shape_4m"),
        (0.01, False, COLOURS, "xyz rgb height"),
        (0.01, False, {"intensity"}, "xyz height"),
    ],
)  # fmt: skip
def test_default_features_follow_from_density_and_attributes(
    voxel_size_m: float, thin: bool, attributes: set[str], expected: str
) -> None:
    config = BlockConfig(tile_size_m=16.0, halo_m=2.0, voxel_size_m=voxel_size_m, thin=thin)
    found = default_features(config, attributes)
    check_features(found)
    assert " ".join(found) == expected
