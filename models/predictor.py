"""Logits for blocks from a checkpoint."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from models.data.stacked import StackedBlocks, network_input, stack
from models.familiarity import LastFeatures, distances
from models.network.graph import nearest_points, ranks_of, strided_ranks
from models.weights.checkpoint import Checkpoint
from pointcloud.blocks.block import Block
from pointcloud.blocks.tiles import iterate_blocks, thin
from pointcloud.cloud import ATTRIBUTES, Cloud

_Item = TypeVar("_Item")

_BATCH_POINTS = 16_384  # enough to fill two cores; more only needs more memory


@dataclass(slots=True)
class Stopwatch:
    """Wall time, in seconds, in the network and its graph, and waiting until other blocks have left it."""

    network: float = 0.0
    waiting: float = 0.0


class Predictor:
    """Runs the network of a checkpoint on blocks; threads that share it take turns in the network."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        rotations: int = 1,
        smoothing: int = 0,
        device: torch.device | None = None,
        batch_points: int | None = None,
    ) -> None:
        """A network, and what is done beyond running it once.

        Args:
            rotations: turns of each block about the vertical, by 360° / rotations, whose logits are averaged.
            smoothing: nearest points of the block in space, the point itself among them, whose logits are averaged
                for a point's; 0 or 1: none.
            device: where the network runs; None: a GPU where there is one.
            batch_points: points of the blocks that go through the network together, at most (16,384), unless one block
                has more.
        """
        self.checkpoint = checkpoint
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = checkpoint.build_network().to(self.device)
        self._last = LastFeatures(self.network) if checkpoint.familiarity is not None else None
        self._rotations, self._smoothing = rotations, smoothing
        self._batch_points = batch_points or _BATCH_POINTS
        self._in_use = threading.Lock()

    def warm_up(self) -> None:
        """Run the network on random points, so that loading on first use is no part of a scan's time."""
        xyz = np.random.default_rng(0).uniform(0, 4, (512, 3))
        cloud = Cloud(xyz, {name: np.ones(len(xyz), np.uint8) for name in ATTRIBUTES})
        config = self.checkpoint.block_config
        for _ in self.logits(iterate_blocks("none", cloud, thin(cloud, config), config, None)):
            pass

    @torch.inference_mode()
    def logits(
        self,
        blocks: Iterable[Block],
        look: Callable[[Block, np.ndarray], None] | None = None,
        watch: Stopwatch | None = None,
    ) -> Iterator[tuple[Block, np.ndarray]]:
        """Each block with its (N, C) logits, the mean over the rotations and the nearest points, by the temperature.

        Args:
            blocks: from one scan or many.
            look: called, before the block is given back, with it and how far each of its points is from what the
                training was like, (N,) float32 (`models.familiarity`); not called where the checkpoint does not know.
            watch: is added to.
        """
        watch = watch or Stopwatch()
        for group, batch in _one_ahead(map(self._with_features, _grouped(blocks, self._batch_points))):
            sizes, far, asked = batch.ptr.diff().tolist(), None, time.perf_counter()
            with self._in_use:
                began = time.perf_counter()
                logits = self._turned(batch).float().cpu().split(sizes)
                if look is not None and self._last is not None and self.checkpoint.familiarity is not None:
                    far = distances(self._last.values, self.checkpoint.familiarity).cpu().split(sizes)
                watch.network += time.perf_counter() - began
            watch.waiting += began - asked
            for number, block in enumerate(group):
                if look is not None and far is not None:
                    look(block, far[number].numpy())
                yield block, logits[number].numpy()

    def _with_features(self, group: list[Block]) -> tuple[list[Block], StackedBlocks]:
        """Blocks, and what the network takes of them."""
        return group, stack(group, self.checkpoint.features, self.checkpoint.statistics)

    def _turned(self, batch: StackedBlocks) -> Tensor:
        ptr, batch = batch.ptr, batch.to(self.device)
        position, total = batch.pos, torch.zeros((), device=self.device)
        for turn in range(self._rotations):
            if turn:
                # Positions count from the middle of the tile, so it stays where it is.
                angle = 2 * math.pi * turn / self._rotations
                cos, sin = math.cos(angle), math.sin(angle)
                about_z = [[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]]
                batch = replace(batch, pos=position @ torch.tensor(about_z, device=self.device))
            total = total + self.network(network_input(batch, self.checkpoint.block_config.tile_size_m), ptr)
        if self._smoothing > 1:
            # Halos are part of the block, so what is next to a tile's edge is smoothed with what lies beyond it.
            bounds = ptr.tolist()
            nearest = nearest_points(position, bounds, self._smoothing)
            near = ranks_of(nearest, bounds, strided_ranks(self._smoothing, 1), 1)
            total = total[near.long()].mean(dim=1)
        return total / (self._rotations * self.checkpoint.temperature)


def _one_ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """The same items; while one is used, the next is made on a thread of its own, as compiled kernels allow."""
    with ThreadPoolExecutor(1, "pointloom-blocks") as pool:
        upcoming = pool.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = pool.submit(next, items, None)
            yield item


def _grouped(blocks: Iterable[Block], batch_points: int) -> Iterator[list[Block]]:
    """Consecutive blocks of at most `batch_points` points together, or a single larger one."""
    group: list[Block] = []
    for block in blocks:
        if group and sum(map(len, group)) + len(block) > batch_points:
            yield group
            group = []
        group.append(block)
    if group:
        yield group
