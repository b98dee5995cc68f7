"""How far a network's last features lie from those of its training: ground that it does not know.

Confidence says how a network decides between its classes, not whether it has seen anything like it: bare rock may be
called building with a confidence of 0.85. Distance in the space of the last features says that (Lee et al., "A Simple
Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS 2018): each class is a
Gaussian there, all of one covariance, and the Mahalanobis distance to the nearest is small for what training was like.
It needs no second pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from models.data.stacked import network_input, stack
from models.network.deepgcn import DeepGCN
from models.weights.checkpoint import Checkpoint, Familiarity
from pointcloud.blocks.block import Block

_DRAWN = 200
"""Points of a block that the Gaussians are fitted to."""
_RIDGE = 1e-3
"""Of the mean variance, added to each: features that hardly vary would make everything far away."""
_FEW = 10
_ENOUGH = 300
"""Blocks that are looked at: 60,000 points."""
_LIMIT = 1.6
"""Of a tile's mean distance, at least, where none was found on places left out (`benchmarks.trust`)."""
_SHARE_BEYOND = 0.02
"""Tiles of the training that may lie beyond the limit."""


class LastFeatures:
    """Keeps what the last hidden layer of a network made of the points that it saw last, (P, D)."""

    def __init__(self, network: DeepGCN) -> None:
        self.values = torch.empty(0)
        network.prediction.second.register_forward_hook(self._keep)

    def _keep(self, _layer: nn.Module, _given: tuple[Tensor, ...], made: Tensor) -> None:
        self.values = made.detach()


def distances(features: Tensor, familiarity: Familiarity) -> Tensor:
    """(P,) of features (P, D) from the nearest class of the training; a tile of the training has 1 on average."""
    whitening, means = familiarity.whitening.to(features), familiarity.means.to(features)
    return torch.cdist(features @ whitening, means).amin(dim=1)


def some(blocks: Iterable[Block], number: int) -> Iterator[Block]:
    """As many as are enough to learn from, evenly spread over so many blocks."""
    return islice(blocks, 0, None, max(1, number // _ENOUGH))


@torch.inference_mode()
def learn_familiarity(checkpoint: Checkpoint, blocks: Iterable[Block]) -> Checkpoint:
    """The checkpoint with what its training looks like in the last features of its network.

    Args:
        checkpoint: with weights.
        blocks: of the training, not augmented; some hundred are enough.

    Returns:
        A new one; the same where there are fewer than `_FEW` blocks, or all of their features are alike.
    """
    network = checkpoint.build_network()
    kept = LastFeatures(network)
    random = np.random.default_rng(0)
    features, predicted, block_of = [], [], []
    for number, (block, logits) in enumerate(_through(network, checkpoint, blocks)):
        core = np.flatnonzero(block.is_core)
        chosen = torch.from_numpy(random.choice(core, min(_DRAWN, len(core)), replace=False))
        features.append(kept.values[chosen].double())
        predicted.append(logits[chosen].argmax(dim=1))
        block_of.append(torch.full((len(chosen),), number))
    if len(features) < _FEW:
        return checkpoint
    of_points, labels, of_block = torch.cat(features), torch.cat(predicted), torch.cat(block_of)
    classes = labels.unique().tolist()
    means = torch.stack([of_points[labels == index].mean(dim=0) for index in classes])
    spread = torch.cat([of_points[labels == index] - means[n] for n, index in enumerate(classes)])
    covariance = spread.T @ spread / len(spread)
    covariance += _RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)
    root, failed = torch.linalg.cholesky_ex(covariance)
    if failed:  # features that never vary, as of a network that has hardly trained
        return checkpoint
    whitening = torch.linalg.inv(root).T
    familiarity = Familiarity(
        means=(means @ whitening).float(), whitening=whitening.float(), limit=float("inf")
    )
    far = distances(of_points.float(), familiarity).double()
    of_blocks = torch.zeros(len(features), dtype=torch.float64).index_add_(0, of_block, far)
    of_blocks /= of_block.bincount()
    usual = float(of_blocks.mean())
    if not 0 < usual < float("inf"):
        return checkpoint
    limit = max(_LIMIT, float(of_blocks.quantile(1 - _SHARE_BEYOND)) / usual)
    scaled = Familiarity(
        means=familiarity.means / usual, whitening=familiarity.whitening / usual, limit=limit
    )
    return replace(checkpoint, familiarity=scaled)


def _through(
    network: DeepGCN, checkpoint: Checkpoint, blocks: Iterable[Block]
) -> Iterator[tuple[Block, Tensor]]:
    for block in blocks:
        batch = stack([block], checkpoint.features, checkpoint.statistics)
        yield block, network(network_input(batch, checkpoint.block_config.tile_size_m), batch.ptr)
