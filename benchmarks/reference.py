"""DeepGCN as the papers write it, without rearranged formulas; the network is measured and tested against it.

Written from the definition (ICCV paper) in the layout of the published code: (B, C, N)
features, the full N × N distance matrix, a sorted top-k, edge features for every one of the N·k edges and
convolutions over these. Blocks in a batch have one size. It reads the state dict of `models.network.deepgcn.DeepGCN`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.network.configurations import DeepGCNConfig


class ReferenceLayer(nn.Module):
    """1×1 convolution, ReLU, batch norm; the last two the other way round when `norm_first`."""

    def __init__(self, in_channels: int, out_channels: int, config: DeepGCNConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels)
        self.norm = nn.BatchNorm2d(out_channels, eps=config.norm_eps)
        self.norm_first = config.norm_first

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, N, K) -> (B, C', N, K)."""
        x = F.conv2d(x, self.linear.weight[:, :, None, None], self.linear.bias)
        return F.relu(self.norm(x)) if self.norm_first else self.norm(F.relu(x))


class ReferenceConvolution(nn.Module):
    """EdgeConv, MRConv, GraphSAGE or GIN on (B, C, N) features and (B, N, K) neighbours."""

    def __init__(self, config: DeepGCNConfig, in_channels: int) -> None:
        super().__init__()
        self.kind = config.convolution
        width = in_channels if self.kind == "gin" else 2 * in_channels
        self.nn = ReferenceLayer(width, config.channels, config)
        if self.kind == "sage":
            self.pool = ReferenceLayer(in_channels, in_channels, config)
        if self.kind == "gin":
            self.epsilon = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        if self.kind == "edge":
            x_i, x_j = x[:, :, :, None].expand(-1, -1, -1, neighbours.shape[2]), gather(x, neighbours)
            return self.nn(torch.cat([x_i, x_j - x_i], dim=1)).amax(dim=3)
        if self.kind == "mr":
            x_j = (gather(x, neighbours) - x[:, :, :, None]).amax(dim=3)
        elif self.kind == "sage":
            x_j = gather(self.pool(x[:, :, :, None])[:, :, :, 0], neighbours).amax(dim=3)
        else:
            return self.nn(((1 + self.epsilon) * x + gather(x, neighbours).sum(dim=3))[:, :, :, None])[
                :, :, :, 0
            ]
        return self.nn(torch.cat([x, x_j], dim=1)[:, :, :, None])[:, :, :, 0]


class ReferenceBackboneLayer(nn.Module):
    """What a layer kind adds around its convolution."""

    def __init__(self, config: DeepGCNConfig, in_channels: int) -> None:
        super().__init__()
        self.kind = config.layer
        self.conv = ReferenceConvolution(config, in_channels)
        if self.kind == "residual+":
            self.norm = nn.BatchNorm1d(in_channels, eps=config.norm_eps)

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        body = self.conv(F.relu(self.norm(x)) if self.kind == "residual+" else x, neighbours)
        if self.kind == "plain":
            return body
        return torch.cat([x, body], dim=1) if self.kind == "dense" else x + body


class ReferencePrediction(nn.Module):
    """Three layers on [fused, features] of every point."""

    def __init__(self, config: DeepGCNConfig, in_channels: int) -> None:
        super().__init__()
        hidden, last = config.prediction_channels
        self.first = ReferenceLayer(config.fusion_channels + in_channels, hidden, config)
        self.second = ReferenceLayer(hidden, last, config)
        self.dropout = nn.Dropout(config.dropout)
        self.classes = nn.Linear(last, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.second(self.first(x)))
        return F.conv2d(x, self.classes.weight[:, :, None, None], self.classes.bias)


class ReferenceDeepGCN(nn.Module):
    """The network of a configuration, strided dilation only."""

    def __init__(self, config: DeepGCNConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.layer_channels
        self.head = ReferenceConvolution(config, config.in_channels)
        self.backbone = nn.ModuleList(ReferenceBackboneLayer(config, width) for width in widths[:-1])
        self.fusion = nn.ModuleDict({"nn": ReferenceLayer(sum(widths), config.fusion_channels, config)})
        self.prediction = ReferencePrediction(config, sum(widths))

    def forward(self, x: Tensor, graph: Tensor | None = None) -> Tensor:
        """x (B, C, N), graph (L, B, N, K) or None -> logits (B, num_classes, N)."""
        coordinates = x[:, list(self.config.coordinate_channels)]
        features: list[Tensor] = []
        for i, layer in enumerate([self.head, *self.backbone]):
            x = features[-1] if features else x
            space = x if i and self.config.dynamic else coordinates
            dilation = self.config.layer_dilations[i]
            features.append(
                layer(x, dilated_knn(space, self.config.k, dilation) if graph is None else graph[i])
            )
        every_layer = torch.cat(features, dim=1)[:, :, :, None]
        fused = self.fusion["nn"](every_layer).amax(dim=2, keepdim=True)
        fused = fused.repeat_interleave(every_layer.shape[2], dim=2)
        return self.prediction(torch.cat([fused, every_layer], dim=1))[:, :, :, 0]


@torch.no_grad()
def dilated_knn(x: Tensor, k: int, dilation: int) -> Tensor:
    """Every dilation-th of the k · dilation nearest, by the full distance matrix. (B, C, N) -> (B, N, K)."""
    x = x.transpose(1, 2)
    squares = x.square().sum(dim=2, keepdim=True)
    distances = squares - 2 * x @ x.transpose(1, 2) + squares.transpose(1, 2)
    return distances.topk(k * dilation, dim=2, largest=False).indices[:, :, ::dilation]


def gather(x: Tensor, neighbours: Tensor) -> Tensor:
    """x_j of every edge: (B, C, N), (B, N, K) -> (B, C, N, K)."""
    batch, channels, num_points = x.shape
    rows = neighbours + torch.arange(batch, device=x.device)[:, None, None] * num_points
    x_j = x.transpose(1, 2).reshape(batch * num_points, channels)[rows.flatten()]
    return x_j.view(*neighbours.shape, channels).permute(0, 3, 1, 2).contiguous()
