"""Labels of a whole cloud in memory, the plain way: what `label_points` gives region by region must be the same."""

from __future__ import annotations

import numpy as np

from models.predictor import Predictor
from pointcloud.blocks.block import Block
from pointcloud.blocks.tiles import iterate_blocks, thin
from pointcloud.cloud import Cloud
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.grid import Grid
from pointcloud.grid.voxels import Voxels
from pointcloud.labelling.interpolation import interpolate
from pointcloud.labelling.measures import class_and_confidence


def label_cloud(predictor: Predictor, name: str, cloud: Cloud) -> tuple[np.ndarray, np.ndarray]:
    """Class indices (P,) and confidences (P,) float32 of every point of a cloud."""
    config = predictor.checkpoint.block_config
    voxels = thin(cloud, config)
    votes = VoxelVotes(len(voxels), len(predictor.checkpoint.label_scheme))
    for block, logits in predictor.logits(iterate_blocks(name, cloud, voxels, config, None)):
        votes.add(block, logits)
    return votes.labels(cloud, voxels, config)


class VoxelVotes:
    """Logits summed over all blocks in whose core a voxel lies (V voxels, C classes).

    Halo points are context only: they never vote.
    """

    def __init__(self, num_voxels: int, num_classes: int) -> None:
        self._logits = np.zeros((num_voxels, num_classes), np.float32)
        self._votes = np.zeros(num_voxels, np.int32)

    def add(self, block: Block, logits: np.ndarray) -> None:
        """Count one block's (N, C) logits. A voxel lies in a block at most once, so plain indexing adds rightly."""
        assert block.voxel is not None, "a block read from a dataset has lost its voxels"
        core = block.voxel[block.is_core]
        self._logits[core] += logits[block.is_core]
        self._votes[core] += 1

    def mean_logits(self) -> np.ndarray:
        """(V, C) float64, averaged over the votes."""
        assert self._votes.all(), "every voxel is in the core of a block"
        return self._logits / self._votes[:, None]

    def labels(self, cloud: Cloud, voxels: Voxels, config: BlockConfig) -> tuple[np.ndarray, np.ndarray]:
        """Class indices (P,) int64 and confidences (P,) float32 of every point of the cloud that the voxels are of.

        Confidence is the softmax probability of the class chosen.
        """
        logits = self.mean_logits()
        if not config.thin:
            return class_and_confidence(logits)
        cell_voxels = Grid.of(config, cloud.crs).cell_voxels
        centres = cloud.xyz[voxels.representative]
        return class_and_confidence(
            interpolate(cloud.xyz, voxels.inverse, centres, voxels.index, voxels.size, cell_voxels, logits)
        )
