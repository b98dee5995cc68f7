"""The blocks that a loss of NaN came from, and the sentence that names them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from models.data.dataset import collate
from models.training.divergence import Diverged, diverging_blocks


def batch(*values: float) -> Batch:
    return collate([Data(pos=torch.full((2, 3), value), name=f"block {n}") for n, value in enumerate(values)])


def loss_alone(block: Batch) -> Tensor:
    return block.pos.sum()


def test_the_blocks_are_named_whose_own_loss_is_nan_or_infinite() -> None:
    assert diverging_blocks(batch(1.0, math.nan, 2.0, math.inf), loss_alone) == ("block 1", "block 3")


def test_all_are_named_where_each_alone_is_finite() -> None:
    assert diverging_blocks(batch(1.0, 2.0), loss_alone) == ("block 0", "block 1")


@pytest.mark.parametrize(
    ("num_blocks", "where"),
    [(0, "epoch 3;"), (1, "epoch 3 at b0;"), (4, "at b0; b1; b2; b3;"), (6, "at b0; b1; b2; b3 and 2 more;")],
)
def test_the_sentence_names_epoch_and_a_few_blocks(num_blocks: int, where: str) -> None:
    sentence = str(Diverged("loss", math.nan, 2, tuple(f"b{n}" for n in range(num_blocks))))
    assert sentence.startswith("the loss became NaN in epoch 3")
    assert where in sentence
    assert str(Diverged("gradient", math.inf, 0, ())).startswith("the gradient became infinite in epoch 1;")
