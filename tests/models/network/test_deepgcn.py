"""The network against the papers' formula written out (benchmarks/reference.py), and what it adds."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from benchmarks.reference import ReferenceDeepGCN
from models.network.configurations import CONFIGURATIONS, DeepGCNConfig
from models.network.deepgcn import DeepGCN
from pointcloud.errors import PointloomError
from tests.models.conftest import settle, small_config
from tests.models.network.test_graph import path as path  # the same two paths

FAMILY = [
    # The TensorFlow original norms first and adds more; a residual+ layer has one more norm.
    {"layer": layer, "convolution": convolution, "norm_first": norm_first}
    | ({"norm_eps": 1e-2} if norm_first else {})
    for layer in ("residual", "residual+", "dense", "plain")
    for convolution in ("edge", "mr", "sage", "gin")
    for norm_first in (False, True)
]


def name(changes: dict[str, object]) -> str:
    return "-".join(str(value) for value in changes.values())


def reference_of(network: DeepGCN) -> ReferenceDeepGCN:
    reference = ReferenceDeepGCN(network.config).double()
    reference.load_state_dict(network.state_dict())
    return reference.train(network.training)


@pytest.mark.parametrize("changes", FAMILY, ids=name)
def test_evaluation_is_the_papers_formula(changes: dict[str, object], points: Tensor) -> None:
    network = settle(DeepGCN(small_config(**changes)).double()).eval()
    with torch.no_grad():
        ours = network(points, torch.tensor([0, len(points)]))
        theirs = reference_of(network)(points.T[None])[0].T
    assert (ours - theirs).abs().max() < 1e-10 * theirs.abs().max().clamp(min=1)


@pytest.mark.parametrize("changes", FAMILY, ids=name)
def test_training_is_the_papers_formula(changes: dict[str, object]) -> None:
    """Logits, every gradient and every running statistic, over a batch of two blocks; dropout and ε off."""
    torch.manual_seed(2)
    x = torch.rand((2, 60, 9), dtype=torch.float64)
    config = small_config(**changes, dropout=0.0, stochastic_epsilon=0.0)
    network = settle(DeepGCN(config).double()).train()
    reference = reference_of(network)
    ours = network(x.flatten(0, 1), torch.tensor([0, 60, 120]))
    theirs = reference(x.transpose(1, 2)).transpose(1, 2).flatten(0, 1)
    assert (ours - theirs).abs().max() < 1e-10 * theirs.abs().max().clamp(min=1)
    probe = torch.randn_like(ours)
    (ours * probe).sum().backward()
    (theirs * probe).sum().backward()
    expected = dict(reference.named_parameters())
    largest = max(p.grad.abs().max() for p in expected.values())
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert (parameter.grad - expected[key].grad).abs().max() < 1e-10 * largest, key
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, reference.state_dict()[key], rtol=1e-10, atol=1e-10, msg=key)


@pytest.mark.parametrize("changes", [{"dynamic": False}, {"coordinate_channels": (6, 7, 8)}], ids=name)
def test_graph_options_are_the_papers_formula(changes: dict[str, object], points: Tensor) -> None:
    network = settle(DeepGCN(small_config(**changes)).double()).eval()
    plain = settle(DeepGCN(small_config()).double()).eval()
    plain.load_state_dict(network.state_dict())
    ptr = torch.tensor([0, len(points)])
    with torch.no_grad():
        ours, others = network(points, ptr), plain(points, ptr)
        theirs = reference_of(network)(points.T[None])[0].T
    assert (ours - theirs).abs().max() < 1e-10
    assert (ours - others).abs().max() > 1e-3, "the option changes nothing"


def test_without_fusion_it_is_the_network_that_pays_no_heed_to_the_fused_vector() -> None:
    x = torch.rand((120, 9), dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    ptr, no_chance = torch.tensor([0, 50, 120]), {"dropout": 0.0, "stochastic_epsilon": 0.0}
    without = settle(DeepGCN(small_config(fusion_channels=0, **no_chance)).double()).train()
    deaf = DeepGCN(small_config(**no_chance)).double().train()
    assert not any(name.startswith("fusion") for name, _ in without.named_parameters())
    weights = deaf.state_dict() | without.state_dict()
    first = "prediction.first.linear.weight"
    zeros = torch.zeros_like(deaf.state_dict()[first][:, : deaf.config.fusion_channels])
    deaf.load_state_dict(weights | {first: torch.cat([zeros, without.state_dict()[first]], dim=1)})
    ours, theirs = without(x, ptr), deaf(x, ptr)
    assert (ours - theirs).abs().max() < 1e-12
    ours.square().sum().backward()
    theirs.square().sum().backward()
    found, expected = (network.head.nn.linear.weight.grad for network in (without, deaf))
    assert found.abs().max() > 0
    assert (found - expected).abs().max() < 1e-10 * expected.abs().max()


def test_blocks_of_different_sizes_do_not_see_each_other(points: Tensor) -> None:
    network = settle(DeepGCN(small_config()).double()).eval()
    bounds = [0, 3, 40, 41, 120]  # 3 and 1 points: fewer than k; 37: fewer than k·d in the last layer too
    with torch.no_grad():
        together = network(points, torch.tensor(bounds))
        apart = [
            network(points[start:end], torch.tensor([0, end - start])) for start, end in pairwise(bounds)
        ]
    assert (together - torch.cat(apart)).abs().max() < 1e-12


@pytest.mark.parametrize("changes", FAMILY, ids=name)
def test_one_point_alone_is_trained_with_the_running_statistics(
    path: str, changes: dict[str, object], points: Tensor
) -> None:
    """Alone it has no variance: the network answers as in evaluation, and learns, and counts nothing."""
    network = settle(DeepGCN(small_config(**changes, dropout=0.0)).double()).eval()
    one, ptr = points[:1], torch.tensor([0, 1])
    expected = network(one, ptr).detach()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = network.train()(one, ptr)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    gradients = {key: parameter.grad for key, parameter in network.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in gradients.values())
    assert gradients["head.nn.linear.weight"].abs().max() > 0


def test_permuting_points_permutes_logits(points: Tensor) -> None:
    network = settle(DeepGCN(small_config()).double()).eval()
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(3))
    ptr = torch.tensor([0, len(points)])
    with torch.no_grad():
        assert (network(points[order], ptr) - network(points, ptr)[order]).abs().max() < 1e-10


def test_own_graph_can_be_forced(points: Tensor) -> None:
    network = settle(DeepGCN(small_config()).double()).eval()
    ptr = torch.tensor([0, len(points)])
    seen: list[Tensor] = []
    for layer in [network.head, *network.backbone]:
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    with torch.no_grad():
        free = network(points, ptr)
        graph = torch.stack(seen)
        assert torch.equal(network(points, ptr, graph=graph), free)
        assert not torch.equal(network(points, ptr, graph=graph.roll(1, dims=0)), free)


def test_the_same_seed_gives_the_same_training(points: Tensor) -> None:
    def trained(seed: int, threads: int) -> tuple[Tensor, Tensor]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            torch.manual_seed(7)
            network = DeepGCN(small_config(stochastic_epsilon=1.0)).train()
            torch.manual_seed(seed)
            logits = network(points.float(), torch.tensor([0, 50, 120]))
            logits.square().mean().backward()
        finally:
            torch.set_num_threads(before)
        return logits.detach(), network.head.nn.linear.weight.grad

    first, again, other = trained(1, 2), trained(1, 2), trained(2, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_evaluation_is_strided_whatever_the_seed(points: Tensor) -> None:
    network = DeepGCN(small_config(stochastic_epsilon=1.0)).eval()
    with torch.no_grad():
        first = network(points.float(), torch.tensor([0, 120]))
        assert torch.equal(network(points.float(), torch.tensor([0, 120])), first)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (CONFIGURATIONS["ResGCN-7"], 1_403_853),
        (CONFIGURATIONS["ResGCN-14"], 2_150_669),
        (CONFIGURATIONS["ResGCN-28"], 3_644_301),
        (CONFIGURATIONS["ResGCN-28W"], 7_066_893),
        (CONFIGURATIONS["ResGCN-56"], 6_631_565),
        (CONFIGURATIONS["ResGCN-112"], 12_606_093),
        (CONFIGURATIONS["PlainGCN-28"], 3_644_301),
        (CONFIGURATIONS["ResMRGCN-28"], 3_644_301),
        (CONFIGURATIONS["DenseGCN-28"], 21_397_197),
        (DeepGCNConfig(layer="dense", num_layers=7), 3_591_117),
    ],
)
def test_parameter_counts_are_the_references(config: DeepGCNConfig, parameters: int) -> None:
    with torch.device("meta"):
        network = DeepGCN(config)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize(
    ("x", "ptr", "message"),
    [
        (torch.rand(10, 8), [0, 10], r"features must be \(points, 9\), found \(10, 8\)"),
        (torch.rand(10, 9), [0, 9], "ptr must run from 0 to the 10 points"),
        (torch.rand(10, 9), [0, 4, 4, 10], "empty block"),
        (torch.rand(10, 9).index_fill(0, torch.tensor([3]), torch.nan), [0, 10], "in 1 of 10 points"),
    ],
)
def test_bad_input_is_one_sentence(x: Tensor, ptr: list[int], message: str) -> None:
    with pytest.raises(PointloomError, match=message) as error:
        DeepGCN(small_config())(x, torch.tensor(ptr))
    assert str(error.value).count("\n") == 0


def test_a_graph_of_another_network_is_refused(points: Tensor) -> None:
    with pytest.raises(PointloomError, match=r"graph must be \(5, 120, 6\), found \(4, 120, 6\)"):
        DeepGCN(small_config())(points.float(), torch.tensor([0, 120]), graph=torch.zeros(4, 120, 6).int())


@pytest.mark.slow
def test_a_block_of_40_000_points_needs_no_square_matrix() -> None:
    """40,000² distances are 6.4 GB; the process may grow by a tenth of that."""
    import resource

    network = DeepGCN(small_config(num_layers=3, channels=16, k=16)).eval()
    x = torch.rand(40_000, 9)
    with torch.no_grad():
        network(x[:500], torch.tensor([0, 500]))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert network(x, torch.tensor([0, 40_000])).isfinite().all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 640_000
