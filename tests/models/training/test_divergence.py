"""The blocks that a loss of NaN came from."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from models.data.dataset import collate
from models.training.divergence import diverging_blocks


def batch(*values: float) -> Batch:
    return collate([Data(pos=torch.full((2, 3), value), name=f"block {n}") for n, value in enumerate(values)])


def loss_alone(block: Batch) -> Tensor:
    return block.pos.sum()


def test_the_blocks_are_named_whose_own_loss_is_nan_or_infinite() -> None:
    assert diverging_blocks(batch(1.0, math.nan, 2.0, math.inf), loss_alone) == ("block 1", "block 3")


def test_all_are_named_where_each_alone_is_finite() -> None:
    assert diverging_blocks(batch(1.0, 2.0), loss_alone) == ("block 0", "block 1")
