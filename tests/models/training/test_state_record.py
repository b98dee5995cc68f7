"""A training's state comes back from safetensors and JSON exactly, and goes on as if it had never been away."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.recipes import TrainConfig
from models.training.state_record import pack, unpack
from pointcloud.errors import SchemaError
from tests.models.training.test_loop import assert_equal_weights, run, start, two_class_blocks
from tests.support.clouds import assert_one_sentence


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert type(one) is type(other)
        for each, its in zip(one, other, strict=True):
            assert_same(each, its)
    else:
        assert one == other


@pytest.mark.parametrize("schedule", ["one_cycle", "halving"])
def test_a_packed_training_ends_in_the_same_weights(schedule: Any) -> None:
    blocks = two_class_blocks()
    config = TrainConfig(epochs=3, batch_size=1, schedule=schedule, augment=False, ema_decay=0.5)
    whole = start(config, len(blocks) * 3)
    packed: list[tuple[bytes, bytes]] = []

    def keep(state: Any) -> None:
        packed.append(pack(state.to_dict()))
        assert_same(unpack(*packed[-1]), state.to_dict())

    run(whole, blocks, config, on_epoch=keep)
    begun = start(config, len(blocks) * 3)
    begun.load(unpack(*packed[0]))
    run(begun, blocks, config)
    assert len(begun.history) == 3
    assert_equal_weights(begun.network.state_dict(), whole.network.state_dict())


def test_damage_is_said() -> None:
    state = start(TrainConfig(epochs=1), 1).to_dict()
    weights, record = pack(state)
    for damaged in ((weights[:-8], record), (weights, record[:-8]), (weights, b'{"schema_version": 1}')):
        with pytest.raises(SchemaError, match="damaged") as error:
            unpack(*damaged)
        assert_one_sentence(error, "fresh=true")
    with pytest.raises(SchemaError, match="version 7"):
        unpack(weights, record.replace(b'"schema_version": 1', b'"schema_version": 7'))
