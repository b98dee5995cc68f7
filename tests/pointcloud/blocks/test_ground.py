"""The ground below several scans: its lowest points without isolated ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pointcloud.blocks.ground import Ground, describe_noise
from pointcloud.formats.reader import read_cloud
from pointcloud.grid.height import lowest_points
from tests.pointcloud.dataset.test_cutting import CONFIG, decode_all, nine, whole
from tests.support.clouds import crop
from tests.support.noise import below_ground, with_points

__all__ = ["nine", "whole"]


def test_lowest_points_as_of_the_cloud(whole: Path, tmp_path: Path) -> None:
    ground = Ground.of(list(decode_all([whole], CONFIG, tmp_path).values()), CONFIG)
    cells, lowest = lowest_points(read_cloud(str(whole)).xyz, CONFIG.ground_window_m)
    np.testing.assert_array_equal(ground.cells, cells)
    np.testing.assert_array_equal(ground.lowest, lowest)
    assert not len(ground.outlier_bins)


@pytest.mark.parametrize("files", [1, 9])
def test_outliers_do_not_count_as_lowest(whole: Path, tmp_path: Path, files: int) -> None:
    config = replace(CONFIG, ground_window_m=30.0)
    noise = below_ground(whole, 40.0, num=4)
    noisy = [with_points(whole, tmp_path / whole.name, noise)]
    if files > 1:
        noisy = crop(noisy[0], tmp_path / "nine", [652_030.3, 652_061.1], [6_600_029.9, 6_600_060.2])
    plain = Ground.of(list(decode_all([whole], config, tmp_path / "plain").values()), config)
    decoded = decode_all(noisy, config, tmp_path / "noisy")
    ground = Ground.of(list(decoded.values()), config)
    np.testing.assert_array_equal(ground.lowest, plain.lowest)
    assert sum(ground.num_outliers(scan) for scan in decoded.values()) == 4
    is_outlier = ground.is_outlier(*noise.T)
    assert is_outlier is not None
    assert is_outlier.all()
    assert ground.is_outlier(*read_cloud(str(whole)).xyz.T) is None
    used = Ground.of(list(decoded.values()), replace(config, noise="use"))
    assert used.lowest.min() < plain.lowest.min() - 30


def test_noise_in_words() -> None:
    assert describe_noise(0, 0) == []
    marked, outliers = describe_noise(1200, 3)
    assert marked.startswith("1,200 of its points are marked")
    assert outliers.startswith("3 of its points are isolated")
