"""The points of a region: each voxel once, those of the scan known from its neighbours', outliers left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pointcloud.blocks.decoded import decode_scan
from pointcloud.blocks.ground import Ground
from pointcloud.blocks.region import Region, read_region
from pointcloud.formats.reader import read_cloud
from pointcloud.grid.grid import Grid
from tests.pointcloud.dataset.test_cutting import CONFIG, nine, whole
from tests.support.clouds import SCHEME
from tests.support.noise import below_ground, with_points

__all__ = ["nine", "whole"]
NOISY = replace(CONFIG, ground_window_m=30.0)


def regions_of(
    scans: list[Path], folder: Path, labelled: bool = False
) -> list[tuple[tuple[int, int], Region]]:
    """All regions that the first of some scans has points in, read with the others beside it."""
    folder.mkdir()
    decoded = tuple(
        decode_scan(scan.name, str(scan), folder / f"{scan.name}.arrow", NOISY, every_point=True)
        for scan in scans
    )
    ground, scheme = Ground.of(decoded, NOISY), SCHEME if labelled else None
    places = {(int(i), int(j)) for i, j in decoded[0].regions}
    return [
        (place, read_region(place, decoded, ground, scans[0].name, NOISY, scheme)) for place in sorted(places)
    ]


@pytest.mark.parametrize("files", [1, 9])
def test_every_point_of_the_scan_has_one_home(
    whole: Path, nine: list[Path], tmp_path: Path, files: int
) -> None:
    scans = [whole] if files == 1 else nine
    cloud = read_cloud(str(scans[0]))
    grid = Grid.of(NOISY, cloud.crs)
    homes = [region.own_points(place, grid) for place, region in regions_of(scans, tmp_path / "decoded")]
    index = np.concatenate([index for index, _, _ in homes])
    assert sorted(index.tolist()) == list(range(len(cloud)))
    np.testing.assert_array_equal(np.concatenate([xyz for _, _, xyz in homes]), cloud.xyz[index])


def test_a_voxel_is_there_once_and_its_points_stand_behind_it(whole: Path, tmp_path: Path) -> None:
    for _, region in regions_of([whole], tmp_path / "decoded"):
        voxel = region.thinned.voxel
        assert len(np.unique(voxel, axis=0)) == len(voxel)
        ends = [*region.starts[1:], len(region.order)]
        for row, (start, end) in enumerate(zip(region.starts, ends, strict=True)):
            points = region.index[region.order[start:end]]
            assert region.thinned.point_index[row] in points


def test_outliers_are_named_and_left_out(whole: Path, tmp_path: Path) -> None:
    noise = below_ground(whole, 40.0, 3)
    noisy = with_points(whole, tmp_path / whole.name, noise)
    expected, read = regions_of([whole], tmp_path / "plain"), regions_of([noisy], tmp_path / "noisy")
    num = len(read_cloud(str(whole)))
    assert {int(n) for _, region in read for n in region.outliers} == {num, num + 1, num + 2}
    for (place, region), (same_place, plain) in zip(read, expected, strict=True):
        assert place == same_place
        assert not len(plain.outliers)
        np.testing.assert_array_equal(region.thinned.point_index, plain.thinned.point_index)
        np.testing.assert_array_equal(region.thinned.height, plain.thinned.height)


def test_points_that_train_have_labels_and_no_exact_places(whole: Path, tmp_path: Path) -> None:
    for _, region in regions_of([whole], tmp_path / "decoded", labelled=True):
        assert region.axes is None
        label = region.thinned.label
        assert label is not None
        codes = read_cloud(str(whole)).attributes["classification"][region.thinned.point_index]
        np.testing.assert_array_equal(label, SCHEME.to_indices(codes))
