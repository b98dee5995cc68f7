"""PyG's EdgeConv is the oracle of ours: the same edges as an edge index, the same MLP, max aggregation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_geometric.nn import EdgeConv as PyGEdgeConv

from models.network.convolutions import EdgeConv


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_edge_conv_is_pygs(norm_first: bool, training: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn((50, 7), dtype=torch.float64)
    neighbours = torch.randint(0, 50, (50, 5), dtype=torch.int32)
    ours = EdgeConv(7, 11, norm_first=norm_first).double().train(training)
    with torch.no_grad():
        ours.nn.norm.weight.normal_()
        ours.nn.norm.running_mean.uniform_()
    order = [ours.nn.norm, nn.ReLU()] if norm_first else [nn.ReLU(), ours.nn.norm]
    theirs = PyGEdgeConv(nn.Sequential(ours.nn.linear, *order), aggr="max")
    edge_index = torch.stack([neighbours.flatten().long(), torch.arange(50).repeat_interleave(5)])
    found = ours(x, neighbours)
    torch.testing.assert_close(found, theirs(x, edge_index), rtol=1e-12, atol=1e-12)
