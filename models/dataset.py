"""From blocks to what the network takes: PyG batches, features last, augmentation before them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch_geometric.transforms as T
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Batch, Data

from pointcloud.blocks import Block
from pointcloud.features import FeatureStatistics, point_features
from pointcloud.labels import IGNORE


def to_data(block: Block, features: tuple[str, ...], statistics: FeatureStatistics) -> Data:
    """One block of N points as PyG data: pos (N, 3) metres, extra (N, C - 3) channels, y (N,) class index.

    Halo points and unlabelled ones are IGNORE.

    Raises:
        ScanError: the block lacks an attribute that a feature needs.
    """
    label = torch.full((len(block),), IGNORE)
    if block.label is not None:
        label[: int(block.is_core.sum())] = torch.from_numpy(block.label[block.is_core]).long()
    return Data(
        pos=torch.from_numpy(block.position),
        extra=torch.from_numpy(point_features(block, features, statistics)),
        y=label,
    )


class BlockDataset(Dataset[Data]):
    """Blocks in memory, in the order given, augmented anew each time one is taken.

    A block without one label has nothing to train or score on, and is left out.
    """

    def __init__(
        self,
        blocks: Iterable[Block],
        features: tuple[str, ...],
        statistics: FeatureStatistics,
        augment: bool = False,
    ) -> None:
        items = (to_data(block, features, statistics) for block in blocks)
        self._items = [item for item in items if (item.y != IGNORE).any()]
        self._augmentation = augmentation() if augment else None

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Data:
        item = self._items[index]
        return self._augmentation(item.clone()) if self._augmentation else item


def augmentation() -> T.Compose:
    """What a survey may look like as well: turned about the vertical, mirrored, larger, a little noisy."""
    return T.Compose(
        [T.RandomRotate(180, axis=2), T.RandomFlip(0), T.RandomScale((0.9, 1.1)), T.RandomJitter(0.02)]
    )


def collate(items: list[Data]) -> Batch:
    """Blocks one after the other, with `ptr`; of different sizes, nothing padded."""
    return Batch.from_data_list(items)


def network_input(batch: Batch, tile_size_m: float) -> Tensor:
    """The (P, C) features of a batch: coordinates in units of half a tile, then the other channels."""
    return torch.cat([batch.pos / (tile_size_m / 2), batch.extra], dim=1)
