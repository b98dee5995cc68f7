"""The network under bfloat16 autocast, which the step uses on a GPU, tried on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reference import ReferenceDeepGCN
from models.network.deepgcn import DeepGCN
from tests.models.conftest import small_config
from tests.models.network.test_graph import path as path  # the same two paths

SEEDS = range(4)


def gaps(network: nn.Module, logits: Callable[[], Tensor], target: Tensor) -> Tensor:
    """(2,) how far logits and all gradients are from those of float32, as parts of the latter's length."""
    found: list[tuple[Tensor, Tensor]] = []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = logits()
        F.cross_entropy(output.float(), target).backward()
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        assert len(gradients) == len(list(network.parameters()))
        assert all(gradient.isfinite().all() for gradient in gradients)
        found.append((output.detach().float(), torch.cat([gradient.flatten() for gradient in gradients])))
    return torch.stack([(half - whole).norm() / whole.norm() for whole, half in zip(*found, strict=True)])


@pytest.mark.parametrize("convolution", ["edge", "mr", "sage", "gin"])
def test_every_operator_trains_as_closely_as_the_papers_formula(path: str, convolution: str) -> None:
    """Maxima that change hands make gradients jump under bfloat16; the formula written out jumps as far."""
    ours, theirs = torch.zeros(2), torch.zeros(2)
    for seed in SEEDS:
        torch.manual_seed(seed)
        config = small_config(num_layers=3, convolution=convolution, dropout=0.0, stochastic_epsilon=0.0)
        network = DeepGCN(config).train()
        reference = ReferenceDeepGCN(config).train()
        reference.load_state_dict(network.state_dict())
        x = torch.rand((2, 200, 9))
        rows, target = x.flatten(0, 1), (x[:, :, 0] * 12).long().flatten()
        graph = torch.randint(0, 200, (3, 2, 200, 6))
        of_rows, ptr = torch.cat([graph[:, 0], graph[:, 1] + 200], dim=1), torch.tensor([0, 200, 400])
        ours += gaps(network, lambda: network(rows, ptr, of_rows), target) / len(SEEDS)  # noqa: B023
        theirs += gaps(
            reference,
            lambda: reference(x.transpose(1, 2), graph).transpose(1, 2).flatten(0, 1),  # noqa: B023
            target,
        ) / len(SEEDS)
    assert 0 < ours[0] < 0.08, "nothing ran in bfloat16, or too much was lost"
    assert (ours < 1.5 * theirs).all(), (ours, theirs)
