"""Published DeepGCN weights (deep_gcns_torch, "dense" networks) as a Pointloom checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from models.deepgcn import DeepGCN, DeepGCNConfig
from pointcloud.errors import SchemaError

_RENAMED = (
    (r"^(?:module|model)\.", ""),
    (r"^head\.gconv\.", "head."),
    (r"^backbone\.(\d+)\.(?:body\.)?gconv\.", r"backbone.\1.conv."),
    (r"^(head|backbone\.\d+\.conv)\.nn1\.", r"\1.pool."),
    (r"^(head|backbone\.\d+\.conv)\.nn2\.", r"\1.nn."),
    (r"^(head|backbone\.\d+\.conv)\.eps$", r"\1.epsilon"),
    (r"^fusion_block\.", "fusion."),
    (r"^prediction\.0\.", "prediction.first."),
    (r"^prediction\.1\.", "prediction.second."),
    (r"^prediction\.3\.0\.", "prediction.classes."),
    (r"\.0\.(weight|bias)$", r".linear.\1"),
    (r"\.2\.(\w+)$", r".norm.\1"),
)
"""Reference keys -> this project's, in this order. There 0 is linear (a 1×1 convolution), 1 ReLU, 2 norm."""


def from_reference_state(
    state: Mapping[str, Tensor], *, k: int = 16, layer: str | None = None, convolution: str | None = None
) -> tuple[DeepGCNConfig, dict[str, Tensor]]:
    """Configuration and weights of a reference network.

    Depth, width, classes and dense layers can be read off the weights. A residual and a plain layer have the
    same weights, so have EdgeConv and MRConv, and k has none: unnamed, it is the papers' choice.

    Args:
        state: deep_gcns_torch's keys and tensors.
        k: neighbours the network was trained with.
        layer: "residual" or "plain" where the weights leave it open; None is residual.
        convolution: "edge" or "mr" where the weights leave it open; None is edge.

    Raises:
        SchemaError: keys or shapes that are not the reference's.
    """
    weights = {_renamed(key): _squeezed(value) for key, value in state.items()}
    try:
        depth = (
            1
            + max((int(key.split(".")[1]) for key in weights if key.startswith("backbone.")), default=-1)
            + 1
        )
        channels, head_in = weights["head.nn.linear.weight"].shape
        num_classes = len(weights["prediction.classes.bias"])
        fusion_channels = len(weights["fusion.linear.bias"])
        hidden, last = (
            len(weights["prediction.first.linear.bias"]),
            len(weights["prediction.second.linear.bias"]),
        )
    except KeyError as missing:
        raise SchemaError(
            f"not a deep_gcns_torch network: expected the weight {missing}, found none."
        ) from None
    if "head.pool.linear.weight" in weights:
        convolution = "sage"
    elif "head.epsilon" in weights:
        convolution = "gin"
    elif convolution is None:
        convolution = "edge"
    if weights["fusion.linear.weight"].shape[1] != depth * channels:
        layer = "dense"
    config = DeepGCNConfig(
        in_channels=head_in if convolution == "gin" else head_in // 2,
        num_classes=num_classes,
        num_layers=depth,
        channels=channels,
        k=k,
        layer=layer or "residual",  # type: ignore[arg-type]
        convolution=convolution,  # type: ignore[arg-type]
        fusion_channels=fusion_channels,
        prediction_channels=(hidden, last),
    )
    _check(config, weights)
    return config, weights


def _renamed(key: str) -> str:
    for pattern, replacement in _RENAMED:
        key = re.sub(pattern, replacement, key)
    return key


def _squeezed(value: Tensor) -> Tensor:
    """A 1×1 convolution's weight (C', C, 1, 1) as a linear layer's (C', C)."""
    return value[:, :, 0, 0] if value.ndim == 4 else value


def _check(config: DeepGCNConfig, weights: Mapping[str, Tensor]) -> None:
    expected = {key: tuple(value.shape) for key, value in DeepGCN(config).state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            raise SchemaError(
                f"weight {key}: expected {expected.get(key, 'none')}, found {found.get(key, 'none')}."
            )
