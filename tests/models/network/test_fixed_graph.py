"""A network whose graph is of the coordinates: searched once, and the same as searched for every layer."""

from __future__ import annotations

import pytest
import torch

from models.network import graph
from models.network.configurations import DeepGCNConfig
from models.network.deepgcn import DeepGCN

CONFIG = DeepGCNConfig(
    in_channels=5, num_classes=3, num_layers=4, channels=8, k=6, dilations=(1, 2, 3), dynamic=False,
    fusion_channels=0, prediction_channels=(8, 8), convolution="mr",
)  # fmt: skip


@pytest.mark.parametrize("sizes", [(400, 300), (400, 9, 1), (4,)], ids=str)
def test_logits_are_those_of_the_graph_of_every_layer(sizes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(4)
    bounds = [0, *torch.tensor(sizes).cumsum(0).tolist()]
    x = torch.randn((bounds[-1], 5), generator=generator)
    network = DeepGCN(CONFIG).eval()
    layers = [
        graph.neighbours(x[:, :3].double(), bounds, graph.strided_ranks(CONFIG.k, d), d)
        for d in CONFIG.layer_dilations
    ]
    with torch.inference_mode():
        given = network(x, torch.tensor(bounds), torch.stack(layers))
        torch.testing.assert_close(network(x, torch.tensor(bounds)), given)


def test_the_graph_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []
    search = graph.nearest_points

    def counted(coordinates: torch.Tensor, bounds: list[int], reach: int) -> torch.Tensor:
        searched.append(reach)
        return search(coordinates, bounds, reach)

    monkeypatch.setattr("models.network.deepgcn.nearest_points", counted)
    network = DeepGCN(CONFIG).train()
    network(torch.randn(200, 5), torch.tensor([0, 200])).sum().backward()
    assert searched == [18]


def test_without_compiled_kernels_the_nearest_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    xyz = torch.randn((350, 3), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    bounds = [0, 300, 310, 350]
    in_grid = graph.nearest_points(xyz, bounds, 24)
    monkeypatch.setattr("models.kernels.dispatch.has_compiled_kernels", lambda x: False)
    assert torch.equal(graph.nearest_points(xyz, bounds, 24), in_grid)
