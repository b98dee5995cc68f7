"""Labels for a whole cloud from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from models.checkpoint import Checkpoint
from models.dataset import collate, network_input, to_data
from pointcloud.blocks import Block
from pointcloud.cloud import Cloud
from pointcloud.merge import VoxelVotes
from pointcloud.tiles import iterate_blocks, thin

_BATCH_POINTS = 16_384  # enough to fill two cores; more only needs more memory


class Predictor:
    """Holds a network and labels clouds with it, on a GPU where there is one."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = checkpoint.build_network().to(self.device)

    def label(self, name: str, cloud: Cloud) -> tuple[np.ndarray, np.ndarray]:
        """Class indices (P,) and confidences (P,) float32 of every point of a cloud.

        Raises:
            ScanError: the cloud lacks an attribute the network needs, or cannot be cut into blocks.
        """
        config = self.checkpoint.block_config
        voxels = thin(cloud, config)
        votes = VoxelVotes(len(voxels), len(self.checkpoint.label_scheme))
        for block, logits in self.logits(iterate_blocks(name, cloud, voxels, config, None)):
            votes.add(block, logits)
        return votes.labels(voxels)

    @torch.inference_mode()
    def logits(self, blocks: Iterable[Block]) -> Iterator[tuple[Block, np.ndarray]]:
        """Each block with its (N, C) logits."""
        for group in _grouped(blocks):
            items = [to_data(b, self.checkpoint.features, self.checkpoint.statistics) for b in group]
            batch = collate(items)
            ptr = batch.ptr
            batch = batch.to(self.device)
            x = network_input(batch, self.checkpoint.block_config.tile_size_m)
            logits = self.network(x, ptr).float().cpu().split(ptr.diff().tolist())
            yield from zip(group, (part.numpy() for part in logits), strict=True)


def _grouped(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Consecutive blocks of at most `_BATCH_POINTS` points together, or a single larger one."""
    group: list[Block] = []
    for block in blocks:
        if group and sum(map(len, group)) + len(block) > _BATCH_POINTS:
            yield group
            group = []
        group.append(block)
    if group:
        yield group
