"""A loss that became NaN or infinite, and the blocks it came from."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Batch

from models.data.dataset import collate
from models.training import distributed
from pointcloud.errors import PointloomError

_NAMED_BLOCKS = 4


class Diverged(PointloomError):
    """A loss or gradient that became NaN or infinite. Trying again with the same settings ends the same way.

    Args:
        what: the loss, the validation loss or the gradient.
        value: inf or NaN.
        epoch: from 0.
        blocks: names of those it came from; empty where it cannot be told.
    """

    def __init__(self, what: str, value: float, epoch: int, blocks: tuple[str, ...]) -> None:
        more = f" and {len(blocks) - _NAMED_BLOCKS} more" if len(blocks) > _NAMED_BLOCKS else ""
        where = f" at {'; '.join(blocks[:_NAMED_BLOCKS])}{more}" if blocks else ""
        became = "NaN" if math.isnan(value) else "infinite"
        super().__init__(
            f"the {what} became {became} in epoch {epoch + 1}{where}; try a smaller learning_rate, and check the scans "
            "for absurd attribute values."
        )


@torch.no_grad()
def diverging_blocks(batch: Batch, loss_alone: Callable[[Batch], Tensor]) -> tuple[str, ...]:
    """Names of the blocks, of all workers, whose loss is NaN or infinite when computed alone; all names where none is.

    Alone, because one block that spoils the mean of batch norm makes the loss of its whole batch NaN. All workers
    must call it.
    """
    bad = [
        block.name for block in batch.to_data_list() if not torch.isfinite(loss_alone(collate([block]))).all()
    ]
    return distributed.gather_names(tuple(bad)) or distributed.gather_names(tuple(batch.name))
