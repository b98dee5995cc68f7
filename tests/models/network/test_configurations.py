from __future__ import annotations

import json

import pytest

from models.network.configurations import CONFIGURATIONS, DeepGCNConfig
from pointcloud.errors import PointloomError, SchemaError


@pytest.mark.parametrize("config", [*CONFIGURATIONS.values(), DeepGCNConfig(num_layers=3, dilations=(2, 5))])
def test_json_gives_the_configuration_back(config: DeepGCNConfig) -> None:
    assert DeepGCNConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_and_missing_keys_are_named() -> None:
    values = DeepGCNConfig().to_dict()
    with pytest.raises(SchemaError, match="unknown keys in the network configuration: depth"):
        DeepGCNConfig.from_dict(values | {"depth": 28})
    del values["k"]
    with pytest.raises(SchemaError, match="missing keys in the network configuration: k"):
        DeepGCNConfig.from_dict(values)


def test_norm_eps_is_written_only_where_it_is_not_the_usual_one() -> None:
    """Records from before there was such a key read as they were trained, and their hashes stay."""
    assert "norm_eps" not in DeepGCNConfig().to_dict()
    assert DeepGCNConfig.from_dict(DeepGCNConfig(k=5).to_dict()).norm_eps == 1e-5
    original = DeepGCNConfig(norm_first=True, norm_eps=1e-3)
    assert DeepGCNConfig.from_dict(json.loads(json.dumps(original.to_dict()))) == original


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0}, "num_layers must be a whole number from 1, found 0"),
        ({"k": 2.5}, "k must be a whole number from 1, found 2.5"),
        ({"k": 300}, "k must be at most 256, found 300"),
        ({"channels": True}, "channels must be"),
        ({"layer": "resnet"}, "layer must be one of residual, residual\\+, dense, plain, found 'resnet'"),
        ({"convolution": "gat"}, "convolution must be one of"),
        ({"num_layers": 4, "dilations": (1, 2)}, "each of the 3 backbone layers"),
        ({"in_channels": 2}, "coordinate_channels must name some of the 2 input channels"),
        ({"stochastic_epsilon": 1.5}, "stochastic_epsilon must be from 0 to 1"),
        ({"fusion_channels": -1}, "fusion_channels must be a whole number from 0, found -1"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"norm_eps": 0.0}, "norm_eps must be above 0"),
        ({"prediction_channels": (512,)}, "prediction_channels must be two"),
    ],
)
def test_impossible_configurations_are_one_sentence(changes: dict, message: str) -> None:
    with pytest.raises(PointloomError, match=message):
        DeepGCNConfig(**changes)


def test_dilation_schedules() -> None:
    assert CONFIGURATIONS["ResGCN-28"].layer_dilations == (1, *range(1, 28))
    assert set(CONFIGURATIONS["PlainGCN-28"].layer_dilations) == {1}
    assert DeepGCNConfig(num_layers=3, dilations=(4, 2)).layer_dilations == (1, 4, 2)
