"""From blocks to what the network takes: augmentation first, then features, then PyG batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Batch, Data

from models.augmentation import Augmentation
from models.kernels import run_on_threads
from pointcloud.blocks import Block
from pointcloud.errors import ScanError
from pointcloud.features import FeatureStatistics, point_features
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

    Raises:
        ScanError: as `to_data`, for any of the blocks.
    """

    def __init__(
        self,
        blocks: Iterable[Block],
        features: tuple[str, ...],
        statistics: FeatureStatistics,
        augmentation: Augmentation | None = None,
    ) -> None:
        self._features, self._statistics, self._augmentation = features, statistics, augmentation
        self._blocks: list[Block] = []
        self._items: list[Data] = []
        for block in blocks:
            item = to_data(block, features, statistics)
            if not (item.y != IGNORE).any():
                continue
            if augmentation is None:
                self._items.append(item)
            else:  # what is deformed gets features of its own
                self._blocks.append(block)

    def __len__(self) -> int:
        return len(self._blocks) or len(self._items)

    def __getitem__(self, index: int) -> Data:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Data]:
        """A batch, as PyTorch's fetcher asks for it: what surrounds the points of its blocks is found on threads."""
        if self._augmentation is None:
            return [self._items[index] for index in indices]
        # Chance is drawn before and after, in one order, whatever the number of threads.
        deformed = [self._augmentation.deform(self._blocks[index]) for index in indices]
        items: list[Data] = [Data()] * len(deformed)

        def make(first: int, end: int) -> None:
            for i in range(first, end):
                items[i] = to_data(deformed[i], self._features, self._statistics)

        run_on_threads(make, len(items))
        return [self._augmentation.turn(item) for item in items]


def collate(items: list[Data]) -> Batch:
    """Blocks one after the other, with `ptr`; of different sizes, nothing padded."""
    return Batch.from_data_list(items)


def network_input(batch: Batch, tile_size_m: float) -> Tensor:
    """The (P, C) features of a batch: coordinates in units of half a tile, then the other channels."""
    return torch.cat([batch.pos / (tile_size_m / 2), batch.extra], dim=1)
