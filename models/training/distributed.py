"""Exchange between the workers of one training. With one process and no process group, nothing is exchanged."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


def num_workers() -> int:
    """How many processes train together; 1 where one trains alone."""
    return dist.get_world_size() if _together() else 1


def total(value: Tensor) -> Tensor:
    """The sum of every worker's value; all workers must ask."""
    if _together():
        value = value.clone()
        dist.all_reduce(value)
    return value


def of_the_first(value: str | None) -> str | None:
    """The first worker's value; all workers must ask."""
    if not _together():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def gather_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Every worker's names, one worker after the other; all workers must ask."""
    if not _together():
        return names
    found: list[tuple[str, ...]] = [()] * num_workers()
    dist.all_gather_object(found, names)
    return tuple(name for each in found for name in each)


@torch.no_grad()
def average_buffers(network: nn.Module) -> None:
    """Give every worker the mean of all workers' batch-norm statistics; all workers must ask.

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
