"""What a DeepGCN is made of, and the configurations the papers name.

Sources: Li et al., "DeepGCNs: Can GCNs Go as Deep as CNNs?", ICCV 2019 (the ICCV paper below), and its TPAMI
follow-up "DeepGCNs: Making GCNs Go as Deep as CNNs" (the TPAMI paper).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from pointcloud.errors import PointloomError, SchemaError

LayerKind = Literal["residual", "residual+", "dense", "plain"]
Convolution = Literal["edge", "mr", "sage", "gin"]


@dataclass(frozen=True, kw_only=True)
class DeepGCNConfig:
    """One network of the family: head, `num_layers - 1` backbone layers, fusion, prediction.

    Each field says what it does in its annotation; the parameters of the flows take their descriptions from there
    (`flows.parameters.base`). "The paper" is the ICCV paper.

    Raises:
        PointloomError: a configuration that no network can have.
    """

    in_channels: Annotated[int, Field(description="Features of a point, coordinates among them.")] = 9
    num_classes: Annotated[int, Field(description="Classes that the logits are of.")] = 13
    num_layers: Annotated[
        int, Field(description="Depth: the head and num_layers - 1 backbone layers (the paper: 28).")
    ] = 28
    channels: Annotated[
        int,
        Field(
            description="Width of the head and of every backbone layer (the paper: 64); growth of a dense layer."
        ),
    ] = 64
    k: Annotated[int, Field(description="Neighbours of a point, itself included.")] = 16
    layer: Annotated[
        LayerKind,
        Field(
            description="ResGCN: residual, body(x) + x, or residual+, body(ReLU(norm(x))) + x (DeeperGCN, 2020); "
            "DenseGCN: dense, [x, body(x)]; PlainGCN: plain, body(x)."
        ),
    ] = "residual"
    convolution: Annotated[
        Convolution, Field(description="EdgeConv, MRConv, GraphSAGE or GIN (compared in the TPAMI paper).")
    ] = "edge"
    dilations: Annotated[
        tuple[int, ...] | None,
        Field(description="Of each backbone layer; None is the papers' 1, 2, 3 … (plain layers: always 1)."),
    ] = None
    stochastic_epsilon: Annotated[
        float,
        Field(
            description="In training, the probability ε that a layer draws its k ranks at random from the k·d (the "
            "paper, stochastic dilation); 0: never."
        ),
    ] = 0.2
    dynamic: Annotated[
        bool,
        Field(description="Build the graph anew in every layer's feature space; False: of the coordinates."),
    ] = True
    norm_first: Annotated[
        bool, Field(description="Batch norm before ReLU, as in the TensorFlow original, instead of after.")
    ] = False
    coordinate_channels: Annotated[
        tuple[int, ...], Field(description="Input channels that the first graph is built on.")
    ] = (0, 1, 2)
    dropout: Annotated[float, Field(description="Before the last linear layer.")] = 0.3
    fusion_channels: Annotated[
        int,
        Field(
            description="Width of the fused, block-wide feature (the paper: 1024); 0: no fusion block, a point's "
            "logits then depend only on what the graph reaches."
        ),
    ] = 1024
    prediction_channels: Annotated[
        tuple[int, int], Field(description="Widths of the two hidden prediction layers.")
    ] = (512, 256)
    norm_eps: Annotated[
        float, Field(description="What batch norm adds to the variance; 1e-3 in the TensorFlow original.")
    ] = 1e-5

    def __post_init__(self) -> None:
        # JSON has lists only; a configuration read from it equals the one written.
        object.__setattr__(self, "coordinate_channels", tuple(self.coordinate_channels))
        object.__setattr__(self, "prediction_channels", tuple(self.prediction_channels))
        if self.dilations is not None:
            object.__setattr__(self, "dilations", tuple(self.dilations))
        for name in ("in_channels", "num_classes", "num_layers", "channels", "k"):
            if not _is_count(getattr(self, name)):
                raise PointloomError(f"{name} must be a whole number from 1, found {getattr(self, name)!r}.")
        if self.fusion_channels != 0 and not _is_count(self.fusion_channels):
            raise PointloomError(
                f"fusion_channels must be a whole number from 0, found {self.fusion_channels!r}."
            )
        if self.k > 256:
            raise PointloomError(f"k must be at most 256, found {self.k}.")
        for name, allowed in (("layer", get_args(LayerKind)), ("convolution", get_args(Convolution))):
            if getattr(self, name) not in allowed:
                raise PointloomError(
                    f"{name} must be one of {', '.join(allowed)}, found {getattr(self, name)!r}."
                )
        if self.dilations is not None and (
            len(self.dilations) != self.num_layers - 1 or not all(_is_count(d) for d in self.dilations)
        ):
            raise PointloomError(
                f"dilations must hold one whole number from 1 for each of the {self.num_layers - 1} backbone "
                f"layers, found {self.dilations}."
            )
        if not self.coordinate_channels or not set(self.coordinate_channels) <= set(range(self.in_channels)):
            raise PointloomError(
                f"coordinate_channels must name some of the {self.in_channels} input channels (from 0), "
                f"found {self.coordinate_channels}."
            )
        if len(self.prediction_channels) != 2 or not all(_is_count(c) for c in self.prediction_channels):
            raise PointloomError(
                f"prediction_channels must be two whole numbers from 1, found {self.prediction_channels}."
            )
        if not 0 <= self.stochastic_epsilon <= 1:
            raise PointloomError(f"stochastic_epsilon must be from 0 to 1, found {self.stochastic_epsilon}.")
        if not 0 <= self.dropout < 1:
            raise PointloomError(f"dropout must be from 0 to below 1, found {self.dropout}.")

        if not 0 < self.norm_eps < 1:
            raise PointloomError(f"norm_eps must be above 0 and below 1, found {self.norm_eps}.")

    @property
    def layer_dilations(self) -> tuple[int, ...]:
        """Dilation of the head (1) and of every backbone layer, `num_layers` of them."""
        if self.dilations is not None:
            return (1, *self.dilations)
        if self.layer == "plain":
            return (1,) * self.num_layers
        return (1, *range(1, self.num_layers))

    @property
    def layer_channels(self) -> tuple[int, ...]:
        """Output channels of the head and of every backbone layer; dense layers keep what came before."""
        growth = self.channels if self.layer == "dense" else 0
        return tuple(self.channels + growth * i for i in range(self.num_layers))

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON can hold it.

        `norm_eps` came late: at its usual value it is left out, and older checkpoints and hashes stay the same.
        """
        values = {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }
        if self.norm_eps == DeepGCNConfig.norm_eps:
            del values["norm_eps"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DeepGCNConfig:
        """Inverse of `to_dict`.

        Raises:
            SchemaError: unknown or missing keys.
            PointloomError: an impossible configuration.
        """
        expected, found = {f.name for f in fields(cls)}, set(values)
        if unknown := found - expected:
            raise SchemaError(f"unknown keys in the network configuration: {', '.join(sorted(unknown))}.")
        if missing := expected - found - {"norm_eps"}:
            raise SchemaError(f"missing keys in the network configuration: {', '.join(sorted(missing))}.")
        return cls(**values)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


CONFIGURATIONS: dict[str, DeepGCNConfig] = {
    "ResGCN-7": DeepGCNConfig(num_layers=7),
    "ResGCN-14": DeepGCNConfig(num_layers=14),
    "ResGCN-28": DeepGCNConfig(),
    "ResGCN-28W": DeepGCNConfig(channels=128, k=8),
    "ResGCN-56": DeepGCNConfig(num_layers=56, k=8),
    "ResGCN-112": DeepGCNConfig(num_layers=112, k=4),
    "PlainGCN-28": DeepGCNConfig(layer="plain"),
    "DenseGCN-28": DeepGCNConfig(layer="dense", channels=32, k=8),
    "ResMRGCN-28": DeepGCNConfig(convolution="mr"),
}
"""The configurations of the papers' tables and of the released weights (ICCV paper, tables 2 and 3)."""
