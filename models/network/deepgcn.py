"""DeepGCN for semantic segmentation: head, dynamic dilated backbone, fusion, prediction (ICCV paper, fig. 2).

Shapes: P points of all blocks together, B blocks, C channels, K neighbours, L layers. Blocks of any sizes lie
one after the other in the rows of x, as PyG's `Batch` lays them; nothing is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.network.aggregation import BlockExtreme, LinearOfAll
from models.network.configurations import DeepGCNConfig
from models.network.convolutions import CONVOLUTIONS, BatchNorm, Pointwise, untracked
from models.network.graph import nearest_points, neighbours, ranks_of, stochastic_ranks, strided_ranks
from pointcloud.errors import PointloomError


class _Norms(TypedDict):
    norm_first: bool
    norm_eps: float


def _norms(config: DeepGCNConfig) -> _Norms:
    """What every layer's batch norm has in common."""
    return {"norm_first": config.norm_first, "norm_eps": config.norm_eps}


class DeepGCN(nn.Module):
    """The network of a configuration, drawn as the reference draws it (Kaiming normal, zero bias).

    With `gradient_checkpointing`, training keeps of a backbone layer its input and its graph and makes the rest
    again on the way back: the same gradients, to the bit, for less memory and more time.
    """

    def __init__(self, config: DeepGCNConfig, *, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.config, self.gradient_checkpointing = config, gradient_checkpointing
        convolution = CONVOLUTIONS[config.convolution]
        widths = config.layer_channels
        self.head = convolution(config.in_channels, config.channels, **_norms(config))
        self.backbone = nn.ModuleList(BackboneLayer(config, width) for width in widths[:-1])
        self.fusion = None
        if config.fusion_channels:
            self.fusion = Fusion(sum(widths), config.fusion_channels, **_norms(config))
        self.prediction = Prediction(config, in_channels=sum(widths))

    def forward(self, x: Tensor, ptr: Tensor, graph: Tensor | None = None) -> Tensor:
        """Logits of every point.

        Args:
            x: (P, C) features of all blocks' points.
            ptr: (B + 1,) int64, the first row of every block, and P; on the CPU or beside x.
            graph: (L, P, K) rows of x to take as neighbours instead of searching them, layer 0 the head.

        Returns:
            (P, num_classes) logits.

        Raises:
            PointloomError: features, ptr or graph of a wrong shape; an empty block; NaN or infinite features.
        """
        bounds = self._check(x, ptr, graph)
        coordinates = x[:, list(self.config.coordinate_channels)]
        graphs = self._graphs(coordinates, bounds, graph)
        features = [self.head(x, graphs(0, coordinates))]
        for i, layer in enumerate(self.backbone, start=1):
            features.append(self._through(layer, features[-1], graphs(i, features[-1])))
        if self.fusion is None:
            (product,) = LinearOfAll.apply(1, self.prediction.weight_of_features(), *features)
            return self.prediction(product)
        sizes = [end - start for start, end in pairwise(bounds)]
        weights = self.fusion.weight(), self.prediction.weight_of_features()
        of_fusion, of_prediction = LinearOfAll.apply(len(weights), *weights, *features)
        return self.prediction(of_prediction, self.fusion(of_fusion, sizes), sizes)

    def _through(self, layer: nn.Module, x: Tensor, neighbours: Tensor) -> Tensor:
        """The layer's features, (P, C')."""
        if not (self.gradient_checkpointing and self.training):
            return layer(x, neighbours)
        # The graph is kept: searching it again would cost more than the layer, and draw other ranks.
        return checkpoint(
            layer, x, neighbours, use_reentrant=False, preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), untracked(layer)),
        )  # fmt: skip

    def _graphs(
        self, coordinates: Tensor, bounds: list[int], graph: Tensor | None
    ) -> Callable[[int, Tensor], Tensor]:
        """The graph of each layer, (P, K) neighbours, by its number and its input (P, C)."""
        k, dilations = self.config.k, self.config.layer_dilations
        if graph is not None:
            return lambda i, _: graph[i].int()
        if self.config.dynamic:
            return lambda i, x: neighbours(coordinates if i == 0 else x, bounds, self._ranks(i), dilations[i])
        # A graph of the coordinates is searched once; every layer takes its ranks.
        nearest = nearest_points(coordinates, bounds, k * max(dilations))
        of_dilation: dict[tuple[int, ...], Tensor] = {}

        def of_layer(i: int, _: Tensor) -> Tensor:
            ranks = self._ranks(i)
            at = tuple(ranks.tolist())
            if at not in of_dilation:
                of_dilation[at] = ranks_of(nearest, bounds, ranks, dilations[i])
            return of_dilation[at]

        return of_layer

    def _ranks(self, i: int) -> Tensor:
        """(K,) ranks of layer i among the nearest."""
        k, dilation = self.config.k, self.config.layer_dilations[i]
        stochastic = self.training and dilation > 1 and torch.rand(()) < self.config.stochastic_epsilon
        return stochastic_ranks(k, dilation) if stochastic else strided_ranks(k, dilation)

    def _check(self, x: Tensor, ptr: Tensor, graph: Tensor | None) -> list[int]:
        """ptr as numbers, once everything fits."""
        config = self.config
        if x.ndim != 2 or x.shape[1] != config.in_channels:
            raise PointloomError(f"features must be (points, {config.in_channels}), found {tuple(x.shape)}.")
        bounds = ptr.tolist()
        if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != len(x):
            raise PointloomError(
                f"ptr must run from 0 to the {len(x)} points, found {bounds[:1]} to {bounds[-1:]}."
            )
        if any(start >= end for start, end in pairwise(bounds)):
            raise PointloomError("every block must have a point, found an empty block in ptr.")
        if graph is not None and graph.shape != (config.num_layers, len(x), config.k):
            expected = (config.num_layers, len(x), config.k)
            raise PointloomError(f"graph must be {expected}, found {tuple(graph.shape)}.")
        if not torch.isfinite(x).all():
            bad = int((~torch.isfinite(x)).any(dim=1).sum())
            raise PointloomError(
                f"features must be finite, found NaN or infinity in {bad} of {len(x)} points."
            )
        return bounds


class BackboneLayer(nn.Module):
    """A graph convolution and its way past: `torch_geometric.nn.DeepGCNLayer`, torch_geometric not imported.

    (That import takes 200 MB, half of what a training step may.)
    """

    def __init__(self, config: DeepGCNConfig, in_channels: int) -> None:
        super().__init__()
        self.kind = config.layer
        convolution = CONVOLUTIONS[config.convolution]
        self.conv = convolution(in_channels, config.channels, **_norms(config))
        if self.kind == "residual+":
            self.norm = BatchNorm(in_channels, eps=config.norm_eps)

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """x (P, C), neighbours (P, K) -> (P, C'), a dense layer's C' being C + channels."""
        body = self.conv(F.relu(self.norm(x)) if self.kind == "residual+" else x, neighbours)
        if self.kind == "plain":
            return body
        return torch.cat([x, body], dim=1) if self.kind == "dense" else x + body


class Fusion(nn.Module):
    """One vector per block: max over its points of norm(ReLU(W features + bias)) (ICCV paper, fusion block)."""

    def __init__(self, in_channels: int, out_channels: int, *, norm_first: bool, norm_eps: float) -> None:
        super().__init__()
        self.nn = Pointwise(in_channels, out_channels, norm_first=norm_first, norm_eps=norm_eps)

    def weight(self) -> Tensor:
        """W, (C', C)."""
        return self.nn.linear.weight

    def forward(self, product: Tensor, sizes: list[int]) -> Tensor:
        """W features (P, C') of every point and the blocks' sizes -> (B, C')."""
        z, sign = product.add_(self.nn.linear.bias).to(self.nn.linear.weight.dtype), self.nn.sign()
        if not self.training or len(z) == 1:  # one point has no variance
            extremes = [
                torch.where(sign < 0, block.amin(dim=0), block.amax(dim=0)) for block in z.split(sizes)
            ]
            return self.nn.activate(torch.stack(extremes))
        floor = -torch.inf if self.nn.norm_first else 0.0
        extreme, mean, variance = BlockExtreme.apply(z, sizes, sign, floor)
        return self.nn.normalise(extreme, mean, variance, count=len(z))


class Prediction(nn.Module):
    """Logits from every layer's features and the block's fused vector (ICCV paper, prediction block)."""

    def __init__(self, config: DeepGCNConfig, *, in_channels: int) -> None:
        super().__init__()
        hidden, last = config.prediction_channels
        self.fused_channels = config.fusion_channels
        self.first = Pointwise(config.fusion_channels + in_channels, hidden, **_norms(config))
        self.second = Pointwise(hidden, last, **_norms(config))
        self.dropout = nn.Dropout(config.dropout)
        self.classes = nn.Linear(last, config.num_classes)
        nn.init.kaiming_normal_(self.classes.weight)
        nn.init.zeros_(self.classes.bias)

    def weight_of_features(self) -> Tensor:
        """W_features of the first layer's W [fused, features], (C', C)."""
        return self.first.linear.weight[:, self.fused_channels :]

    def forward(self, product: Tensor, fused: Tensor | None = None, sizes: Sequence[int] = ()) -> Tensor:
        """W_features features (P, C') of every point, fused (B, C'') and the blocks' sizes -> (P, num_classes)."""
        # W [fused, features] = W_fused · fused + W_features · features: nothing is repeated per point.
        of_block: Tensor = self.first.linear.bias
        if fused is not None:
            w_fused = self.first.linear.weight[:, : self.fused_channels]
            of_block = F.linear(fused, w_fused, self.first.linear.bias)
            if len(sizes) > 1:
                of_block = of_block.repeat_interleave(torch.tensor(sizes, device=of_block.device), dim=0)
        return self.classes(self.dropout(self.second(self.first.activate(product.add_(of_block)))))
