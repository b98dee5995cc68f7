"""Recipes by name: the paper's as published, today's as it was, every field open to change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from models.recipes import RECIPES, TrainConfig, fusion_channels, recipe
from models.training.loop import begin
from pointcloud.errors import PointloomError
from tests.support.clouds import assert_one_sentence


def learning_rates(config: TrainConfig, steps_per_epoch: int) -> list[float]:
    """Of every step."""
    state = begin(nn.Linear(2, 2), config, steps_per_epoch)
    rates = []
    for _ in range(config.epochs * steps_per_epoch):
        rates.append(state.optimizer.param_groups[0]["lr"])
        state.optimizer.step()
        state.scheduler.step()
    return rates


def test_the_paper_is_adam_halved_every_twenty_epochs_and_nothing_else() -> None:
    config = recipe("paper")
    rates = learning_rates(config, steps_per_epoch=3)
    expected = [1e-3 * 0.5 ** (epoch // 20) for epoch in range(100) for _ in range(3)]
    assert rates == pytest.approx(expected, rel=1e-12)
    assert type(begin(nn.Linear(2, 2), config, 1).optimizer) is torch.optim.Adam
    assert (config.batch_size, config.loss) == (16, "cross_entropy")
    off = (
        "weight_decay",
        "label_smoothing",
        "class_weights",
        "augment",
        "colour_drop",
        "channel_drop",
        "clip_norm",
        "ema_decay",
    )
    assert [name for name in off if getattr(config, name)] == []


def test_a_shorter_training_halves_as_often() -> None:
    config = recipe("paper").with_epochs(10)
    assert learning_rates(config, 1) == pytest.approx([1e-3 * 0.5 ** (epoch // 2) for epoch in range(10)])
    assert recipe("paper").with_epochs(2).halving_epochs == 1


def test_modern_is_the_default() -> None:
    assert recipe("modern") == TrainConfig() == RECIPES["modern"]
    assert type(begin(nn.Linear(2, 2), TrainConfig(), 1).optimizer) is torch.optim.AdamW


def test_fields_are_changed_one_by_one() -> None:
    changed = recipe("paper", epochs=5, augment=True, learning_rate=None)
    assert (changed.epochs, changed.augment, changed.learning_rate) == (5, True, 1e-3)
    assert recipe("modern", class_weights=False).class_weights is False


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"accumulation": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"clip_norm": -1.0},
        {"ema_decay": 1.0},
        {"label_smoothing": 1.0},
        {"channel_drop": 1.0},
        {"stretch": 0.9},
        {"crop": 1.0},
        {"loss": "hinge"},
        {"optimizer": "sgd"},
        {"schedule": "constant"},
    ],
    ids=str,
)
def test_settings_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(PointloomError, match=next(iter(change))) as error:
        recipe("modern", **change)
    assert_one_sentence(error, "")


def test_an_unknown_recipe_is_said() -> None:
    with pytest.raises(PointloomError, match="modern, paper") as error:
        recipe("future")
    assert_one_sentence(error, "future")


def test_a_batch_is_shared_out_evenly_or_refused() -> None:
    config = TrainConfig(batch_size=8, accumulation=2)
    assert [config.blocks_at_once(n) for n in (1, 2, 4)] == [4, 2, 1]
    with pytest.raises(PointloomError, match="multiple of 6") as error:
        config.blocks_at_once(3)
    assert_one_sentence(error, "batch_size")


def test_modern_is_another_on_sparse_surveys_and_what_is_asked_for_stays() -> None:
    assert recipe("modern").crop == 0
    assert recipe("modern").class_weights
    sparse = recipe("modern", sparse=True, epochs=7)
    assert (sparse.crop, sparse.class_weights, sparse.epochs) == (0.8, False, 7)
    assert recipe("modern", sparse=True, crop=0.3, class_weights=True).crop == 0.3
    assert recipe("modern", sparse=True, class_weights=True).class_weights
    assert recipe("paper", sparse=True) == RECIPES["paper"]
    assert (sparse.relief, recipe("modern").relief) == (0, 0)


def test_modern_lays_airborne_blocks_on_relief_unless_asked_otherwise() -> None:
    assert recipe("modern", airborne=True) == replace(recipe("modern"), relief=0.6)
    both = recipe("modern", airborne=True, sparse=True)
    assert (both.relief, both.crop) == (0.6, 0.8)
    assert recipe("modern", airborne=True, relief=0.0).relief == 0
    assert recipe("paper", airborne=True) == RECIPES["paper"]


def test_the_fused_vector_is_left_out_by_modern_on_sparse_surveys_alone() -> None:
    widths = [
        fusion_channels(name, sparse=sparse, width=9)
        for name in ("modern", "paper")
        for sparse in (False, True)
    ]
    assert widths == [9, 0, 9, 9]
