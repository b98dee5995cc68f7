"""Gradient checkpointing gives the same loss, gradients and running statistics, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.network.configurations import DeepGCNConfig
from models.network.deepgcn import DeepGCN


def step(*, gradient_checkpointing: bool, **changes: Any) -> tuple[float, DeepGCN]:
    """One training step's way there and back, everything random on."""
    config = DeepGCNConfig(
        in_channels=5, num_classes=3, num_layers=6, channels=8, k=4, fusion_channels=16, prediction_channels=(16, 8),
        stochastic_epsilon=0.5, dropout=0.5, **changes,
    )  # fmt: skip
    torch.manual_seed(0)
    network = DeepGCN(config, gradient_checkpointing=gradient_checkpointing)
    x, y = torch.rand((300, 5)), torch.randint(3, (300,))
    loss = torch.nn.functional.cross_entropy(network(x, torch.tensor([0, 140, 300])), y)
    loss.backward()
    return loss.item(), network


@pytest.mark.parametrize("convolution", ["edge", "mr", "sage", "gin"])
@pytest.mark.parametrize("layer", ["residual", "residual+", "dense", "plain"])
def test_the_same_loss_gradients_and_statistics(layer: str, convolution: str) -> None:
    kept_loss, kept = step(gradient_checkpointing=False, layer=layer, convolution=convolution)
    made_loss, made = step(gradient_checkpointing=True, layer=layer, convolution=convolution)
    assert made_loss == kept_loss
    for (name, one), other in zip(kept.named_parameters(), made.parameters(), strict=True):
        assert one.grad is not None
        assert torch.equal(one.grad, other.grad), name
    for (name, one), other in zip(kept.named_buffers(), made.buffers(), strict=True):
        assert torch.equal(one, other), name
    assert all(m.momentum == 0.1 for m in made.modules() if isinstance(m, torch.nn.BatchNorm1d))


def test_less_is_kept_for_the_way_back() -> None:
    def kept_bytes(gradient_checkpointing: bool) -> int:
        config = DeepGCNConfig(
            in_channels=5, num_layers=12, channels=16, k=4, convolution="mr", fusion_channels=16
        )
        torch.manual_seed(0)
        network, stored = DeepGCN(config, gradient_checkpointing=gradient_checkpointing), dict[int, int]()

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(torch.rand((400, 5)), torch.tensor([0, 400])).sum()
        return sum(stored.values())

    assert kept_bytes(True) < 0.9 * kept_bytes(False)
