"""Labels come back to every point: from core points only, as the mean over all views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pointcloud.blocks.tiles import iterate_blocks, thin
from pointcloud.labelling.interpolation import interpolate
from tests.support.clouds import SMALL, make_cloud
from tests.support.voxel_votes import VoxelVotes

C = 3


@pytest.mark.parametrize("thinned", [True, False])
@pytest.mark.parametrize("overlap", [1, 2])
def test_mean_of_the_core_votes_and_softmax_confidence(overlap: int, thinned: bool) -> None:
    config = replace(SMALL, overlap=overlap, thin=thinned)
    cloud = make_cloud(600, seed=1)
    voxels = thin(cloud, config)
    votes = VoxelVotes(len(voxels), C)
    rng = np.random.default_rng(0)
    given: list[list[np.ndarray]] = [[] for _ in range(len(voxels))]
    for block in iterate_blocks("a", cloud, voxels, config, None):
        logits = rng.normal(0, 3, (len(block), C)).astype(np.float32)
        assert (~block.is_core).any()
        logits[~block.is_core] = 1e6  # a halo that votes cannot be overlooked
        votes.add(block, logits)
        assert block.voxel is not None
        for row in np.flatnonzero(block.is_core):
            given[block.voxel[row]].append(logits[row].astype(np.float64))
    labels, confidence = votes.labels(cloud, voxels, config)
    assert labels.shape == confidence.shape == (len(cloud),)
    assert {len(v) for v in given} == {overlap**2}
    means = np.array([np.mean(views, axis=0) for views in given])[voxels.inverse]
    if thinned:
        stands_for_it = voxels.representative[voxels.inverse] == np.arange(len(cloud))
        assert 0 < stands_for_it.sum() < len(cloud)
        between = interpolate(
            cloud.xyz, voxels.inverse, cloud.xyz[voxels.representative], voxels.index, voxels.size,
            config.voxels_per_tile // overlap, votes.mean_logits(),
        )  # fmt: skip
        np.testing.assert_allclose(between[stands_for_it], means[stands_for_it], rtol=1e-4, atol=1e-4)
        means = between
    for point in range(len(cloud)):
        mean = means[point].astype(np.float64)
        softmax = np.exp(mean) / np.exp(mean).sum()
        assert labels[point] == mean.argmax()
        assert confidence[point] == pytest.approx(softmax.max(), abs=1e-5)


def test_confidence_survives_large_logits() -> None:
    cloud = make_cloud(20)
    voxels = thin(cloud, SMALL)
    votes = VoxelVotes(len(voxels), C)
    for block in iterate_blocks("a", cloud, voxels, SMALL, None):
        votes.add(block, np.tile(np.array([-1e4, 1e4, 0], np.float32), (len(block), 1)))
    labels, confidence = votes.labels(cloud, voxels, SMALL)
    assert (labels == 1).all()
    assert (confidence == 1).all()
