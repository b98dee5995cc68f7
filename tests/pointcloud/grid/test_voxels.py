"""Voxels: every point in exactly one, and the same ones whatever the order of the points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyproj import CRS

from pointcloud.cloud import Cloud
from pointcloud.errors import ScanError
from pointcloud.grid.voxels import every_point, voxelize
from tests.support.clouds import assert_one_sentence

# Multiples of half a voxel lie on its edges and in its centre, where ties and rounding are.
grid = st.integers(-40, 40).map(lambda n: n / 4)
coordinate = st.one_of(grid, st.floats(-10, 10, allow_subnormal=False))
corner = st.sampled_from([(0.0, 0.0, 0.0), (652_000.0, 6_600_000.0, 30.0), (-1_234.5, -7_000_000.25, -400.0)])


@st.composite
def clouds(draw: st.DrawFn) -> Cloud:
    xyz = draw(hnp.arrays(np.float64, st.tuples(st.integers(1, 60), st.just(3)), elements=coordinate))
    crs = draw(st.sampled_from([None, CRS("EPSG:2225"), CRS("EPSG:32119+6360")]))
    return Cloud(xyz + draw(corner), crs=crs)


@given(cloud=clouds(), size=st.sampled_from([0.25, 0.5, 3.0]))
def test_every_point_is_in_exactly_one_voxel(cloud: Cloud, size: float) -> None:
    voxels = voxelize(cloud, size)
    assert voxels.inverse.shape == (len(cloud),)
    assert set(voxels.inverse.tolist()) == set(range(len(voxels)))
    assert len(np.unique(voxels.index, axis=0)) == len(voxels)
    edges = np.array([voxels.size[0], voxels.size[0], voxels.size[1]])
    np.testing.assert_array_equal(voxels.index[voxels.inverse], np.floor(cloud.xyz / edges))
    np.testing.assert_array_equal(voxels.inverse[voxels.representative], np.arange(len(voxels)))


@given(cloud=clouds(), size=st.sampled_from([0.5, 3.0]))
def test_the_representative_is_the_nearest_to_the_centre(cloud: Cloud, size: float) -> None:
    voxels = voxelize(cloud, size)
    edges = np.array([voxels.size[0], voxels.size[0], voxels.size[1]])
    distance = np.linalg.norm(cloud.xyz / edges - voxels.index[voxels.inverse] - 0.5, axis=1)
    for voxel, chosen in enumerate(voxels.representative):
        assert distance[chosen] <= distance[voxels.inverse == voxel].min() + 1e-12


@given(cloud=clouds(), seed=st.integers(0, 99))
def test_the_order_of_the_points_changes_nothing(cloud: Cloud, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(cloud))
    one, other = voxelize(cloud, 0.5), voxelize(cloud[order], 0.5)
    np.testing.assert_array_equal(one.index, other.index)
    np.testing.assert_array_equal(one.inverse[order], other.inverse)
    # Points at one place are the same point here, whatever their other attributes.
    np.testing.assert_array_equal(
        cloud.xyz[one.representative], cloud.xyz[order][other.representative], strict=True
    )


def test_of_points_equally_near_the_smallest_stands_for_the_voxel() -> None:
    around = np.array([[x, y, z] for x in (0.25, 0.75) for y in (0.25, 0.75) for z in (0.25, 0.75)])
    for seed in range(20):
        xyz = np.random.default_rng(seed).permutation(around)
        voxels = voxelize(Cloud(xyz), 1.0)
        np.testing.assert_array_equal(xyz[voxels.representative], [[0.25, 0.25, 0.25]])


def test_the_voxel_size_is_metres_in_any_crs() -> None:
    x = np.arange(0, 10, 0.1)
    metres = Cloud(np.stack([x, 0 * x, 0 * x], axis=1))
    feet = Cloud(metres.xyz * 3937 / 1200, crs=CRS("EPSG:2225"))
    np.testing.assert_array_equal(voxelize(metres, 0.35).inverse, voxelize(feet, 0.35).inverse)
    mixed = voxelize(Cloud(metres.xyz, crs=CRS("EPSG:32119+6360")), 0.5)
    assert mixed.size == pytest.approx((0.5, 0.5 * 3937 / 1200))


@given(cloud=clouds())
def test_without_thinning_each_point_stands_for_itself(cloud: Cloud) -> None:
    voxels = every_point(cloud, 0.5)
    np.testing.assert_array_equal(voxels.representative, np.arange(len(cloud)))
    np.testing.assert_array_equal(voxels.inverse, np.arange(len(cloud)))
    thinned = voxelize(cloud, 0.5)
    np.testing.assert_array_equal(voxels.index, thinned.index[thinned.inverse])


@pytest.mark.parametrize("cut", [voxelize, every_point])
@pytest.mark.parametrize("far", [1e9, -1e9, 1e300, 2.0**21 * 0.25])
def test_an_extent_that_cannot_be_real_is_refused(cut: object, far: float) -> None:
    cloud = Cloud(np.array([[0.0, 0, 0], [1, far, 2]]))
    with pytest.raises(ScanError, match="stray points") as error:
        cut(cloud, 0.25)
    assert_one_sentence(error, "clip the scan")


def test_the_widest_extent_that_fits() -> None:
    cloud = Cloud(np.array([[0.0, 0, 0], [0, 2.0**21 * 0.25 - 0.25, 0]]) - 3e5)
    assert len(voxelize(cloud, 0.25)) == 2
