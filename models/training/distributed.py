"""Exchange between the workers of one training. With one process and no process group, nothing is exchanged."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


def num_workers() -> int:
    """How many processes train together; 1 where one trains alone."""
    return dist.get_world_size() if _together() else 1


def sum_over_workers(value: Tensor) -> Tensor:
    """The sum of every worker's value; all workers must call it."""
    if _together():
        value = value.clone()
        dist.all_reduce(value)
    return value


def from_first_worker(value: str | None) -> str | None:
    """The first worker's value, on all of them; all workers must call it."""
    if not _together():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def gather_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Every worker's names, one worker after the other; all workers must call it."""
    if not _together():
        return names
    gathered: list[tuple[str, ...]] = [()] * num_workers()
    dist.all_gather_object(gathered, names)
    return tuple(name for of_worker in gathered for name in of_worker)


@torch.no_grad()
def average_buffers(network: nn.Module) -> None:
    """Give every worker the mean of all workers' batch-norm statistics; all workers must call it.

    In training each worker normalises by its own blocks, as DistributedDataParallel does too; without this, what
    validation and the checkpoint see would be worker 0's blocks alone.
    """
    if _together():
        for buffer in network.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= num_workers()


def _together() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
