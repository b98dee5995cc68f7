"""From blocks to what the network takes: PyG batches, features last, augmentation before them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch_geometric.transforms as T
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Batch, Data

from pointcloud.blocks import Block
from pointcloud.errors import ScanError
from pointcloud.features import FeatureStatistics, num_channels, point_features
from pointcloud.labels import IGNORE


def to_data(block: Block, features: tuple[str, ...], statistics: FeatureStatistics) -> Data:
    """One block of N points as PyG data: pos (N, 3) metres, extra (N, C - 3) channels, y (N,) class index, name.

    Halo points and unlabelled ones are IGNORE. The name is for people: scan and tile.

    Raises:
        ScanError: the block lacks an attribute that a feature needs, or has values that are no numbers.
    """
    name = f"scan {block.scan!r} tile {block.tile[0]}, {block.tile[1]}"
    extra = torch.from_numpy(point_features(block, features, statistics))
    position = torch.from_numpy(block.position)
    if not (torch.isfinite(extra).all() and torch.isfinite(position).all()):
        raise ScanError(f"{name} has NaN or infinite features; check the scan's attributes, or leave it out.")
    label = torch.full((len(block),), IGNORE)
    if block.label is not None:
        label[: int(block.is_core.sum())] = torch.from_numpy(block.label[block.is_core]).long()
    return Data(
        pos=position,
        extra=extra,
        y=label,
        name=name,
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
        colour_drop: float = 0.0,
    ) -> None:
        items = (to_data(block, features, statistics) for block in blocks)
        self._items = [item for item in items if (item.y != IGNORE).any()]
        self._augmentation = augmentation(features, colour_drop) if augment else None

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Data:
        item = self._items[index]
        return self._augmentation(item.clone()) if self._augmentation else item


def augmentation(features: tuple[str, ...] = ("xyz",), colour_drop: float = 0.0) -> T.Compose:
    """What a survey may look like as well: turned about the vertical, mirrored, larger, a little noisy, uncoloured."""
    moves = [T.RandomRotate(180, axis=2), T.RandomFlip(0), T.RandomScale((0.9, 1.1)), T.RandomJitter(0.02)]
    if "rgb" in features and colour_drop:
        before = num_channels(features[1 : features.index("rgb")])
        moves.append(ColourDrop(slice(before, before + num_channels(("rgb",))), colour_drop))
    return T.Compose(moves)


class ColourDrop(T.BaseTransform):
    """Now and then a block without colours, all 0, so that shape alone must do (PointNeXt, 2022).

    Args:
        channels: of `extra` that hold colours.
        probability: of a block to lose them.
    """

    def __init__(self, channels: slice, probability: float) -> None:
        self._channels, self._probability = channels, probability

    def forward(self, data: Data) -> Data:
        if torch.rand(()) < self._probability:
            data.extra = data.extra.clone()
            data.extra[:, self._channels] = 0.0
        return data


def collate(items: list[Data]) -> Batch:
    """Blocks one after the other, with `ptr`; of different sizes, nothing padded."""
    return Batch.from_data_list(items)


def network_input(batch: Batch, tile_size_m: float) -> Tensor:
    """The (P, C) features of a batch: coordinates in units of half a tile, then the other channels."""
    return torch.cat([batch.pos / (tile_size_m / 2), batch.extra], dim=1)
