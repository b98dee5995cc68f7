"""The order of the blocks in an epoch, and how the workers of one training share them: each once per epoch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from pointcloud.errors import PointloomError

_EPOCH_STRIDE = 1_000_003  # seeds lie close together, and no two may give the same order


class DealtBatches(Sampler[list[int]]):
    """The micro-batches of one worker: indices of blocks, a list for each micro-batch of each step.

    One permutation for each (seed, epoch), whatever the number of workers, is cut into steps, and each step into
    the workers' micro-batches. Nothing is repeated or left out, and every worker has the same number of micro-batches.

    A remainder that fills no step is spread over the steps, since a small step of its own might have no block for
    some worker: each has `batch_size` blocks or somewhat more. How many steps there are does not depend on the
    workers either, so that a training whose workers become fewer keeps its schedule.

    Args:
        num_blocks: in the training split.
        batch_size: blocks in a step, over all workers and micro-batches.
        accumulation: micro-batches of a worker's share of a step.
        seed: of the permutations.
        rank, num_workers: who of how many.

    Raises:
        PointloomError: fewer blocks than workers.
    """

    def __init__(
        self,
        num_blocks: int,
        batch_size: int,
        accumulation: int,
        seed: int,
        rank: int = 0,
        num_workers: int = 1,
    ) -> None:
        if num_blocks < num_workers:
            raise PointloomError(
                f"{num_blocks} labelled training block(s) cannot be shared out among {num_workers} Ray workers; use "
                "fewer of them, or smaller tiles in the preprocess flow."
            )
        self._num_blocks, self._seed = num_blocks, seed
        self._rank, self._num_workers = rank, num_workers
        self.num_steps = max(1, num_blocks // batch_size)
        # Only a dataset smaller than a single step has fewer.
        self._num_micro_batches = min(accumulation, num_blocks // self.num_steps // num_workers)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration, counted from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self.num_steps * self._num_micro_batches

    def __iter__(self) -> Iterator[list[int]]:
        chance = torch.Generator().manual_seed((self._seed + _EPOCH_STRIDE * self._epoch) % 2**63)
        order = torch.randperm(self._num_blocks, generator=chance)
        for step in order.tensor_split(self.num_steps):
            micro_batches = step.tensor_split(self._num_micro_batches * self._num_workers)
            for indices in micro_batches[self._rank :: self._num_workers]:
                yield indices.tolist()
