"""From blocks to what the network takes: augmentation first, then features, then PyG batches."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import Batch, Data

from models.data.augmentation import Augmentation
from models.data.sampling import DealtBatches
from models.data.stacked import name_of, to_tensors
from models.kernels.dispatch import run_on_threads
from pointcloud.blocks.block import Block
from pointcloud.blocks.features import FeatureStatistics
from pointcloud.errors import PointloomError
from pointcloud.labels import IGNORE

_CPUS_PER_LOADER = 4
"""A block's surroundings in four radii take a third of the time that a core trains on it."""
_MOST_LOADERS = 16
_LOADER_SECONDS = 600.0


def to_data(block: Block, features: tuple[str, ...], statistics: FeatureStatistics) -> Data:
    """One block of N points as PyG data: pos (N, 3) metres, extra (N, C - 3) channels, y (N,) class index, name.

    Halo points and unlabelled ones are IGNORE. The name is for people: scan and tile.

    Raises:
        ScanError: the block lacks an attribute that a feature needs, or has NaN or infinite values.
    """
    position, extra = to_tensors(block, features, statistics)
    label = torch.full((len(block),), IGNORE)
    if block.label is not None:
        label[: int(block.is_core.sum())] = torch.from_numpy(block.label[block.is_core]).long()
    return Data(
        pos=position,
        extra=extra,
        y=label,
        name=name_of(block),
    )


class BlockDataset(Dataset[Data]):
    """Blocks in memory, in the order given, augmented anew in each epoch.

    What is drawn for a block follows from the seed, the epoch and its place among the others: it is the same whichever
    Ray worker takes it, in whatever batch and process. A block without one label has nothing to train or score on,
    and is left out.

    Args:
        blocks: what is kept.
        features: that the network takes.
        statistics: by which they are standardised.
        augmentation: None for blocks as they are.
        seed: of the augmentation.

    Raises:
        ScanError: as `to_data`, for any of the blocks.
    """

    def __init__(
        self,
        blocks: Iterable[Block],
        features: tuple[str, ...],
        statistics: FeatureStatistics,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self._features, self._statistics, self._augmentation = features, statistics, augmentation
        self._seed, self._epoch = seed, 0
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

    @property
    def is_augmented(self) -> bool:
        """Whether blocks are augmented as they are read."""
        return self._augmentation is not None

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next blocks are for, from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._blocks) or len(self._items)

    def __getitem__(self, index: int) -> Data:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Data]:
        """A batch, as PyTorch's fetcher asks for it: what surrounds the points of its blocks is found on threads."""
        if self._augmentation is None:
            return [self._items[index] for index in indices]
        deformed, turned = [], []
        for index in indices:
            with _seeded(self._seed, self._epoch, index, 0):
                deformed.append(self._augmentation.deform(self._blocks[index]))
        items: list[Data] = [Data()] * len(deformed)

        def make(first: int, end: int) -> None:
            for i in range(first, end):
                items[i] = to_data(deformed[i], self._features, self._statistics)

        run_on_threads(make, len(items))
        for index, item in zip(indices, items, strict=True):
            with _seeded(self._seed, self._epoch, index, 1):
                turned.append(self._augmentation.turn(item))
        return turned


@contextmanager
def _seeded(*seed: int) -> Iterator[None]:
    """Random numbers that follow from the seed; afterwards the training's own continue as if undisturbed."""
    before = random.getstate()  # PyG draws from Python's
    word = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1)
    with torch.random.fork_rng(devices=[]):
        # Not `torch.manual_seed`, which would seed a GPU as well.
        torch.default_generator.manual_seed(word)
        random.seed(word)
        try:
            yield
        finally:
            random.setstate(before)


def collate(items: list[Data]) -> Batch:
    """Blocks one after the other, with `ptr`; of different sizes, nothing padded."""
    return Batch.from_data_list(items)


def num_loaders(cpus: int, gpu: bool) -> int:
    """How many processes make blocks ready beside a training that has so many CPUs.

    Beside a GPU all but one, up to 16: it takes a block in less time than a core deforms one. On CPUs some share them
    with the training, which waits for them where they fall behind.
    """
    if cpus < 2 or sys.platform != "linux":  # elsewhere a forked process is not safe
        return 0
    return min(cpus - 1, _MOST_LOADERS) if gpu else max(1, cpus // _CPUS_PER_LOADER)


class _ErrorsAsItems(Dataset[Any]):
    """A `BlockDataset` whose errors are items of a batch.

    Raised in a process that makes batches, an error would arrive as the text of that process's traceback.
    """

    def __init__(self, items: BlockDataset) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitems__(self, indices: Sequence[int]) -> list[Data] | list[PointloomError]:
        try:
            return self.items.__getitems__(indices)
        except PointloomError as error:
            return [error]


def _collate_or_error(items: list[Data] | list[PointloomError]) -> Batch | PointloomError:
    error = next((item for item in items if isinstance(item, PointloomError)), None)
    return collate(items) if error is None else error


class Batches(DataLoader[Any]):
    """Batches of a `BlockDataset`, made by `batches`; an error is raised as it is, in whichever process it arose."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of an epoch, counted from 0."""
        cast(_ErrorsAsItems, self.dataset).items.set_epoch(epoch)
        if isinstance(self.batch_sampler, DealtBatches):
            self.batch_sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, PointloomError):
                raise batch
            yield batch


def batches(items: BlockDataset, loaders: int, **order: Any) -> Batches:
    """Batches of blocks, made in so many processes where there is something to make.

    They are the same for any number of processes. `order` is `DataLoader`'s: batch_size, shuffle, batch_sampler.

    Raises:
        ScanError: by the iterator, as `to_data`, for a block as it was deformed.
    """
    if loaders and items.is_augmented:
        # New ones each epoch, which they learn from the dataset as it is then.
        order |= {
            "num_workers": loaders, "multiprocessing_context": "fork", "prefetch_factor": 4, "timeout": _LOADER_SECONDS,
        }  # fmt: skip
    return Batches(_ErrorsAsItems(items), collate_fn=_collate_or_error, **order)
