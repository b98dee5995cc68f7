"""Isolated points are found, and nothing that belongs to the ground, to plants or to wires."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pointcloud.crs import metres_per_unit
from pointcloud.formats.reader import read_cloud
from pointcloud.grid.height import lowest_points
from pointcloud.grid.noise import bins_of, find_outliers, height_profile, merge_profiles
from pointcloud.labels import NOISE_CODES
from pointcloud.simulate.survey import SurveyConfig, simulate_cloud
from tests.support.clouds import real_files

CELL, BIN = 10.0, 1.0
IGN_ARTEFACT = 65


def ground(per_m2: float = 4.0, slope: float = 0.0, size: float = 60.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, size, (2, int(per_m2 * size**2)))
    return np.stack([x, y, 100 + slope * x + 0.3 * np.sin(y / 7) + rng.normal(0, 0.05, len(x))], axis=1)


def outliers(xyz: np.ndarray) -> np.ndarray:
    """(P,) bool."""
    bins, num_points, lowest = height_profile(xyz, CELL, BIN)
    marked = {tuple(row) for row in bins[find_outliers(bins, num_points, lowest, BIN)].tolist()}
    return np.array([tuple(row) in marked for row in bins_of(xyz, CELL, BIN).tolist()])


def assert_found(cloud: np.ndarray, noise: np.ndarray) -> None:
    """Each of some noise points in a cloud is found, and nothing else."""
    found = outliers(np.concatenate([cloud, noise]))
    assert found[len(cloud) :].all()
    assert not found[: len(cloud)].any()


@pytest.mark.parametrize("depth", [5, 10, 30, 100, 430])
@pytest.mark.parametrize("place", [(30.0, 30.0), (0.5, 0.5), (59.9, 0.1)], ids=["middle", "corner", "edge"])
def test_one_point_below_ground(depth: float, place: tuple[float, float]) -> None:
    assert_found(ground(), np.array([[*place, 100.0 - depth]]))


@pytest.mark.parametrize("slope", [0.1, 0.3, 0.6])
def test_on_a_slope(slope: float) -> None:
    assert_found(ground(slope=slope), np.array([[30.0, 30.0, 100 + slope * 30 - 30]]))


@pytest.mark.parametrize("slope", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("depth", [4.0, 6.0, 8.0])
def test_a_little_below_the_lowest_ground_of_its_cell(depth: float, slope: float) -> None:
    """There lower ground lies nearby, downhill."""
    assert_found(ground(slope=slope), np.array([[30.5, 35.0, 100 + slope * 30 - depth]]))


def test_pits_shafts_and_ground_between_houses_stay() -> None:
    rng = np.random.default_rng(4)
    quarry = ground()
    quarry[:, 2] -= np.where(np.hypot(*(quarry[:, :2] - 30).T) < 12, 15, 0)
    shaft = np.stack([*rng.uniform(30, 31.5, (2, 9)), rng.uniform(94, 94.5, 9)], axis=1)
    stairs = np.stack([np.linspace(30, 34, 9), np.full(9, 30.0), np.linspace(100, 96, 9)], axis=1)
    valley = ground()
    valley[:, 2] += np.abs(valley[:, 0] - 30)
    roofs = ground(per_m2=0.3)
    yard = np.hypot(*(roofs[:, :2] - 30).T) > 6
    roofs[yard, 2] += rng.choice([0.0, 4.0, 9.0], np.count_nonzero(yard))
    for cloud in (
        quarry, np.concatenate([ground(), shaft]), np.concatenate([ground(), stairs]), valley, roofs,
    ):  # fmt: skip
        assert not outliers(cloud).any()


@pytest.mark.parametrize("height", [-30.0, -10.0, 200.0])
def test_a_cluster_of_three(height: float) -> None:
    cluster = np.array([[29.9, 30.0, height], [30.2, 30.1, height + 0.4], [30.0, 29.8, height - 0.3]])
    assert_found(ground(), cluster + np.array([0, 0, 100]))


def test_many_points_below_and_a_flock_above() -> None:
    rng = np.random.default_rng(1)
    low = np.stack([*rng.uniform(0, 60, (2, 20)), rng.uniform(-50, 85, 20)], axis=1)
    birds = np.stack([*rng.uniform(20, 35, (2, 6)), rng.uniform(300, 310, 6)], axis=1)
    assert_found(ground(), np.concatenate([low, birds]))


def test_one_that_hides_another_is_found_before_it() -> None:
    # Six at once are too many for a small gap; without those far below, the last one is alone.
    deep = np.array([[30.0 + n, 30.0, 40.0 + 4 * n] for n in range(5)])
    assert_found(ground(), np.concatenate([deep, [[30.0, 31.0, 94.0]]]))


def test_a_scan_without_noise_has_none() -> None:
    """Buildings, trees, wires and terrain of the simulator, sparse and dense."""
    for density in (1.0, 8.0):
        config = SurveyConfig(tile_size_m=100.0, tiles=(1, 1), points_per_m2=density, noise_fraction=0.0)
        assert not outliers(simulate_cloud(config, 0, 0).xyz).any()


def test_a_mast_of_few_returns_and_a_ditch_stay() -> None:
    mast = np.array([[30.0, 30.0, 112.0], [30.0, 30.1, 108.0]])
    ditch = np.array([[40.0, y, 98.5] for y in np.arange(0.0, 60.0, 5.0)])
    assert not outliers(np.concatenate([ground(), mast, ditch])).any()


def test_the_foot_of_a_cliff_and_ground_below_a_dense_canopy_stay() -> None:
    rng = np.random.default_rng(2)
    top = ground()
    top[:, 2] += np.where(top[:, 0] > 30, 25, 0)
    canopy = np.stack([*rng.uniform(0, 60, (2, 8000)), np.maximum(rng.normal(112, 4, 8000), 103)], axis=1)
    below = np.stack([*rng.uniform(0, 60, (2, 100)), rng.normal(100, 0.3, 100)], axis=1)
    assert not outliers(top).any()
    assert not outliers(np.concatenate([canopy, below])).any()


def test_few_points_far_apart_tell_nothing() -> None:
    assert not outliers(np.concatenate([ground(per_m2=0.05), [[30.0, 30.0, 70.0]]])).any()


def test_neither_order_nor_files_matter() -> None:
    noise = np.array([[29.0, 31.0, 60.0], [1.0, 1.0, 20.0]])
    cloud = np.concatenate([ground(), noise])
    whole = height_profile(cloud, CELL, BIN)
    shuffled = cloud[np.random.default_rng(3).permutation(len(cloud))]
    halves = [height_profile(some, CELL, BIN) for some in np.array_split(shuffled, 7)]
    merged = merge_profiles(*(np.concatenate(column) for column in zip(*halves, strict=True)))
    for one, other in zip(whole, merged, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("size", [60.0, 4000.0], ids=["table", "sorted"])
def test_a_profile_counts_every_point_and_keeps_the_lowest(size: float) -> None:
    cloud = ground(per_m2=5000 / size**2, size=size)
    bins, num_points, lowest = height_profile(cloud, CELL, 0.01)
    assert num_points.sum() == len(cloud)
    assert (np.lexsort(bins.T[::-1]) == np.arange(len(bins))).all()
    cells, expected = lowest_points(cloud, 3 * CELL)
    for cell, low in zip(cells, expected, strict=True):
        assert lowest[(bins[:, :2] == cell).all(axis=1)].min() == low


def test_no_points_no_outliers() -> None:
    assert find_outliers(np.empty((0, 3), np.int64), np.empty(0, np.int64), np.empty(0), BIN).shape == (0,)


@pytest.mark.parametrize("path", real_files("[!t]*/*.laz", max_bytes=3_000_000, min_bytes=100_000))
def test_outliers_of_real_scans_are_noise_or_very_few(path: Path) -> None:
    """IGN has a class for the artefacts of LiDAR HD, ASPRS one for low and one for high noise."""
    cloud = read_cloud(str(path))
    metres = metres_per_unit(cloud.crs)
    codes = cloud.attributes.get("classification", np.zeros(len(cloud), np.uint8))
    found = outliers(
        (cloud.xyz * [metres[0], metres[0], metres[1]])[~np.isin(codes, (*NOISE_CODES, IGN_ARTEFACT))]
    )
    assert np.count_nonzero(found) <= 1e-4 * len(cloud)
