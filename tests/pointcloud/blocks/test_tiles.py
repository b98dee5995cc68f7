"""Tiles: every voxel in the core of exactly one per shift, and a halo that is all of what lies around."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS

from pointcloud.blocks.block import Block
from pointcloud.blocks.tiles import thin
from pointcloud.cloud import Cloud
from pointcloud.crs import metres_per_unit
from pointcloud.errors import ScanError
from pointcloud.grid.block_config import BlockConfig
from tests.support.clouds import SCHEME, SMALL, assert_one_sentence, cut, make_cloud

US_FOOT = 1200 / 3937
corners = st.sampled_from([(0.0, 0.0, 0.0), (652_003.3, 6.6e6, 80.0), (-12.5, -5_000_001.25, -40.0)])


@st.composite
def settled(draw: st.DrawFn) -> tuple[Cloud, BlockConfig]:
    """A cloud, half of its points on the quarter metre grid, and a config that cuts it into some blocks."""
    crs = draw(st.sampled_from([None, CRS("EPSG:2225"), CRS("EPSG:32119+6360")]))
    cloud = make_cloud(draw(st.integers(1, 250)), draw(st.integers(0, 99)), draw(corners), crs=crs)
    xyz = cloud.xyz.copy()
    xyz[::2] = np.round(xyz[::2] * 4) / 4
    config = BlockConfig(
        tile_size_m=draw(st.sampled_from([4.0, 6.0])),
        halo_m=draw(st.sampled_from([0.0, 0.5, 1.7, 4.0])),
        voxel_size_m=draw(st.sampled_from([0.5, 1.0])),
        thin=draw(st.booleans()),
        overlap=draw(st.sampled_from([1, 2])),
        max_points=draw(st.sampled_from([64, 4096])),
    )
    return Cloud(xyz, cloud.attributes, crs), config


def cut_or_none(cloud: Cloud, config: BlockConfig) -> list[Block] | None:
    try:
        return cut(cloud, config)
    except ScanError as error:
        assert "max_points" in str(error)  # noqa: PT017
        return None


@given(case=settled())
def test_every_voxel_is_in_the_core_of_one_block_per_shift(case: tuple[Cloud, BlockConfig]) -> None:
    cloud, config = case
    voxels, blocks = thin(cloud, config), cut_or_none(cloud, config)
    if blocks is None:
        return
    shifts = {(a, b) for a in range(config.overlap) for b in range(config.overlap)}
    assert {b.shift for b in blocks} == shifts
    for shift in shifts:
        here = [b for b in blocks if b.shift == shift]
        core = np.concatenate([core_voxels(b) for b in here])
        assert sorted(core.tolist()) == list(range(len(voxels)))
    for block in blocks:
        assert len(block) <= config.max_points
        assert block.is_core.any()
        assert block.voxel is not None
        np.testing.assert_array_equal(block.point_index, voxels.representative[block.voxel])
        assert len(np.unique(block.voxel)) == len(block)


def core_voxels(block: Block) -> np.ndarray:
    assert block.voxel is not None
    return block.voxel[block.is_core]


@given(case=settled())
def test_the_halo_is_all_that_lies_within_its_distance(case: tuple[Cloud, BlockConfig]) -> None:
    cloud, config = case
    voxels, blocks = thin(cloud, config), cut_or_none(cloud, config)
    xy = cloud.xyz[voxels.representative, :2]
    unit = voxels.size[0] / config.voxel_size_m
    rounding = 1e-9 * np.abs(xy).max()
    for block in blocks or []:
        low, high = np.array(block.cell[:2]), np.array(block.cell[2:])
        halo = config.halo_m * unit
        surely = ((xy >= low - halo + rounding) & (xy < high + halo - rounding)).all(axis=1)
        perhaps = ((xy >= low - halo - rounding) & (xy < high + halo + rounding)).all(axis=1)
        assert block.voxel is not None
        assert set(np.flatnonzero(surely)) <= set(block.voxel.tolist()) <= set(np.flatnonzero(perhaps))
        core = xy[core_voxels(block)]
        assert ((core >= low - rounding) & (core < high + rounding)).all()


@given(case=settled())
def test_origin_and_position_are_the_coordinates(case: tuple[Cloud, BlockConfig]) -> None:
    cloud, config = case
    metres = np.array([*metres_per_unit(cloud.crs)])[[0, 0, 1]]
    for block in cut_or_none(cloud, config) or []:
        assert block.position.dtype == np.float32
        assert block.origin.dtype == np.float64
        back = block.origin + block.position.astype(np.float64) / metres
        np.testing.assert_array_less(np.abs(back - cloud.xyz[block.point_index]) * metres, 1e-3)
        assert np.abs(block.position[:, :2]).max() <= config.tile_size_m / 2 + config.halo_m + 1e-3
        assert block.position[:, 2].min() == 0


@given(case=settled())
@settings(max_examples=20)
def test_attributes_and_labels_go_with_their_points(case: tuple[Cloud, BlockConfig]) -> None:
    cloud, config = case
    for block in cut_or_none(cloud, config) or []:
        assert set(block.attributes) == set(cloud.attributes) - {"classification"}
        for name, values in block.attributes.items():
            np.testing.assert_array_equal(values, cloud.attributes[name][block.point_index])
        codes = cloud.attributes["classification"][block.point_index]
        np.testing.assert_array_equal(block.label, SCHEME.to_indices(codes))


@pytest.mark.parametrize("corner", [0.0, 6_600_000.0, -6_600_000.0, -8.0])
def test_tile_edges_are_half_open(corner: float) -> None:
    lines = corner + np.arange(-2, 3) * 8.0
    xyz = np.array([[x, y, 0.0] for x in lines for y in lines])
    cloud = Cloud(xyz)
    voxels, blocks = thin(cloud, SMALL), cut(cloud)
    assert len(voxels) == len(blocks) == 25
    for block in blocks:
        assert block.is_core.sum() == 1
        point = xyz[block.point_index[block.is_core][0]]
        np.testing.assert_array_equal(block.cell[:2], point[:2])  # in the tile that begins there
        assert block.tile == tuple((point[:2] / 8).astype(int))


def test_the_tile_is_as_wide_in_feet_as_in_metres() -> None:
    metres = make_cloud(300)
    feet = Cloud(metres.xyz / US_FOOT, metres.attributes, CRS("EPSG:2225"))
    for one, other in zip(cut(metres), cut(feet), strict=True):
        assert (other.cell[2] - other.cell[0]) * US_FOOT == pytest.approx(8.0, abs=1e-9)
        assert one.tile == other.tile
        np.testing.assert_array_equal(one.point_index, other.point_index)
        np.testing.assert_allclose(one.position, other.position, atol=1e-5)
        np.testing.assert_allclose(one.height, other.height, atol=1e-5)


def test_heights_are_metres_where_only_they_are_feet() -> None:
    metres = make_cloud(300)
    xyz = metres.xyz / [1, 1, US_FOOT]
    mixed = Cloud(xyz, metres.attributes, CRS("EPSG:32119+6360"))
    for one, other in zip(cut(metres), cut(mixed), strict=True):
        np.testing.assert_array_equal(one.point_index, other.point_index)
        np.testing.assert_allclose(one.height, other.height, atol=1e-5)
        np.testing.assert_allclose(one.position, other.position, atol=1e-5)


def test_shifted_grids_start_a_part_of_a_tile_further() -> None:
    config = replace(SMALL, overlap=4)
    for block in cut(make_cloud(200), config):
        for axis in (0, 1):
            start = block.tile[axis] * 8.0 + block.shift[axis] * 2.0
            assert block.cell[axis] == start
            assert block.cell[axis + 2] == start + 8.0


def test_blocks_come_tile_after_tile_the_same_every_time() -> None:
    cloud, config = make_cloud(500, seed=3), replace(SMALL, overlap=2, max_points=64)
    one, other = cut(cloud, config), cut(cloud, config)
    assert [(b.shift, b.tile) for b in one] == sorted((b.shift, b.tile) for b in one)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.position, b.position)
        np.testing.assert_array_equal(a.point_index, b.point_index)


def test_dense_tiles_are_cut_smaller() -> None:
    cloud = make_cloud(3000, extent=(8.0, 8.0, 4.0))
    config = replace(SMALL, halo_m=0.5, max_points=500)
    blocks = cut(cloud, config)
    assert {b.tile for b in blocks} == {(0, 0)}
    assert {b.cell[2] - b.cell[0] for b in blocks} <= {4.0, 2.0}
    assert sum(b.is_core.sum() for b in blocks) == len(thin(cloud, config))


def test_points_at_one_place_that_no_cut_can_part() -> None:
    cloud = Cloud(np.tile([[3.3, 4.4, 5.5]], (65, 1)))
    with pytest.raises(ScanError, match="65 points within") as error:
        cut(cloud, replace(SMALL, thin=False, max_points=64))
    assert_one_sentence(error, "remove duplicates")
    (block,) = cut(cloud, replace(SMALL, thin=False, max_points=65))
    assert len(block) == 65
    (block,) = cut(cloud, replace(SMALL, max_points=64))
    assert len(block) == 1


def test_a_cloud_of_one_point() -> None:
    cloud = make_cloud(1, corner=(652_000.0, 6_600_000.0, 10.0))
    (block,) = cut(cloud)
    assert block.is_core.tolist() == [True]
    assert block.height.tolist() == [0.0]
    assert block.point_index.tolist() == [0]


def test_without_labels_there_are_none() -> None:
    assert all(b.label is None for b in cut(make_cloud(50), scheme=None))
    assert all(b.label is None for b in cut(make_cloud(50, labelled=False)))
