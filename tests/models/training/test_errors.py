"""The sentence that ends a training whose loss is no longer a finite number."""

from __future__ import annotations

import math

import pytest

from models.training.errors import Diverged


@pytest.mark.parametrize(
    ("num_blocks", "where"),
    [(0, "epoch 3;"), (1, "epoch 3 at b0;"), (4, "at b0; b1; b2; b3;"), (6, "at b0; b1; b2; b3 and 2 more;")],
)
def test_the_sentence_names_epoch_and_a_few_blocks(num_blocks: int, where: str) -> None:
    sentence = str(Diverged("loss", math.nan, 2, tuple(f"b{n}" for n in range(num_blocks))))
    assert sentence.startswith("the loss became NaN in epoch 3")
    assert where in sentence
    assert str(Diverged("gradient", math.inf, 0, ())).startswith("the gradient became infinite in epoch 1;")
