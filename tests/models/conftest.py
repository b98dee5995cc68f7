"""Small networks and blocks that several tests of the network share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.network.configurations import DeepGCNConfig
from models.network.deepgcn import DeepGCN


def settle(network: DeepGCN, seed: int = 0) -> DeepGCN:
    """Weights and statistics as a trained network has them: batch norm's weights of both signs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * 0.5 + 0.4)
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.2)
                module.running_mean.copy_(torch.rand(module.bias.shape, generator=generator))
                module.running_var.copy_(torch.rand(module.bias.shape, generator=generator) + 0.5)
    return network


def small_config(**changes: object) -> DeepGCNConfig:
    """Five layers of 8 channels: dilations 1, 1, 2, 3, 4."""
    values = {"num_layers": 5, "channels": 8, "k": 6, "fusion_channels": 32, "prediction_channels": (24, 16)}
    return DeepGCNConfig(**(values | changes))


@pytest.fixture
def points() -> Tensor:
    """(120, 9) float64 features."""
    return torch.rand((120, 9), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
