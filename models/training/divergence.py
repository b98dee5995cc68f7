"""The blocks that a loss of NaN or infinity came from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Batch

from models.data.dataset import collate
from models.training import distributed


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
