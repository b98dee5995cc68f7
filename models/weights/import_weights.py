"""Published DeepGCN weights as a Pointloom checkpoint: deep_gcns_torch ("dense" networks) and the TensorFlow original.

python -m models.weights.import_weights CHECKPOINT.pth --out DIR [--k 16 --layer plain --convolution mr]
python -m models.weights.import_weights VARIABLES.npz --out DIR …  # see models/weights/tensorflow_weights.py
"""

from __future__ import annotations

import argparse
import pickle
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from models.network.configurations import DeepGCNConfig
from models.network.deepgcn import DeepGCN
from models.weights.checkpoint import Checkpoint, save_checkpoint
from models.weights.tensorflow_weights import NORM_EPS, from_tensorflow_variables, read_tensorflow_variables
from pointcloud.blocks.features import FeatureStatistics
from pointcloud.errors import PointloomError, SchemaError
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labels import PRESETS

ROOMS = BlockConfig(tile_size_m=1.0, halo_m=0.0, thin=False, overlap=2)
"""Columns of 1 m × 1 m every 0.5 m, as the published networks were trained on."""
FEATURES = {6: ("xyz", "rgb"), 9: ("xyz", "rgb", "room_xyz")}
"""What the published networks take, by the number of channels."""
COORDINATES = {"block": (0, 1, 2), "room": (6, 7, 8)}
"""Channels of the first graph: block-centred xyz (deep_gcns_torch), room-normalised xyz (the TensorFlow original)."""

_RENAMED = (
    (r"^(?:module|model)\.", ""),
    (r"^head\.gconv\.", "head."),
    (r"^backbone\.(\d+)\.(?:body\.)?gconv\.", r"backbone.\1.conv."),
    (r"^(head|backbone\.\d+\.conv)\.nn1\.", r"\1.pool."),
    (r"^(head|backbone\.\d+\.conv)\.nn2\.", r"\1.nn."),
    (r"^(head|backbone\.\d+\.conv)\.eps$", r"\1.epsilon"),
    (r"^fusion_block\.", "fusion.nn."),
    (r"^prediction\.0\.", "prediction.first."),
    (r"^prediction\.1\.", "prediction.second."),
    (r"^prediction\.3\.0\.", "prediction.classes."),
    (r"\.0\.(weight|bias)$", r".linear.\1"),
    (r"\.[12]\.(\w+)$", r".norm.\1"),
)
"""Reference keys -> this project's, in this order.

There 0 is linear (a 1×1 convolution), 1 ReLU and 2 norm, or in the TensorFlow order 1 norm and 2 ReLU.
"""


def from_reference_state(
    state: Mapping[str, Tensor],
    *,
    k: int = 16,
    layer: str | None = None,
    convolution: str | None = None,
    norm_first: bool = False,
) -> tuple[DeepGCNConfig, dict[str, Tensor]]:
    """Configuration and weights of a reference network in torch.

    Args:
        state: deep_gcns_torch's keys and tensors.
        k, layer, convolution: as for `with_configuration`.
        norm_first: norm before ReLU although the keys do not say so.

    Raises:
        SchemaError: keys or shapes that are not the reference's, or norms before ReLU and after.
    """
    places = {numbered[1] for key in state if (numbered := re.search(r"\.([12])\.running_mean$", key))}
    if len(places) > 1:
        raise SchemaError("batch norm must come either before every ReLU or after, found both in the keys.")
    weights = {_renamed(key): _squeezed(value) for key, value in state.items()}
    return with_configuration(
        weights, k=k, layer=layer, convolution=convolution, norm_first=norm_first or places == {"1"}
    )


def with_configuration(
    weights: dict[str, Tensor], *, k: int, layer: str | None, convolution: str | None, norm_first: bool
) -> tuple[DeepGCNConfig, dict[str, Tensor]]:
    """The configuration of a network's weights, and these.

    Depth, width, classes and dense layers can be read off the weights. A residual and a plain layer have the
    same weights, so have EdgeConv and MRConv, and k has none: unnamed, it is the papers' choice.

    Args:
        weights: under this project's keys.
        k: neighbours the network was trained with.
        layer: "residual" or "plain" where the weights leave it open; None is residual.
        convolution: "edge" or "mr" where the weights leave it open; None is edge.
        norm_first: the TensorFlow order, norm before ReLU, with the original's eps.

    Raises:
        SchemaError: weights that make no network.
    """
    try:
        depth = (
            1
            + max((int(key.split(".")[1]) for key in weights if key.startswith("backbone.")), default=-1)
            + 1
        )
        channels, head_in = weights["head.nn.linear.weight"].shape
        num_classes = len(weights["prediction.classes.bias"])
        fusion_channels = len(weights["fusion.nn.linear.bias"])
        hidden, last = (
            len(weights["prediction.first.linear.bias"]),
            len(weights["prediction.second.linear.bias"]),
        )
    except KeyError as missing:
        raise SchemaError(f"not a published DeepGCN: expected the weight {missing}, found none.") from None
    if "head.pool.linear.weight" in weights:
        convolution = "sage"
    elif "head.epsilon" in weights:
        convolution = "gin"
    elif convolution is None:
        convolution = "edge"
    if weights["fusion.nn.linear.weight"].shape[1] != depth * channels:
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
        norm_first=norm_first,
        norm_eps=NORM_EPS if norm_first else DeepGCNConfig.norm_eps,
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
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    for key in sorted(expected.keys() | shapes.keys()):
        if expected.get(key) != shapes.get(key):
            raise SchemaError(
                f"weight {key}: expected {expected.get(key, 'none')}, found {shapes.get(key, 'none')}."
            )


def read_reference_state(file: Path) -> dict[str, Tensor]:
    """Weights of a deep_gcns_torch checkpoint; pickled code in it is refused, not run.

    Raises:
        PointloomError: no such file, or one that holds anything but tensors and plain values.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).split("\n")[0]
        raise PointloomError(f"{file} cannot be read as weights: {reason}") from error
    for key in ("state_dict", "model_state_dict"):
        if isinstance(content, Mapping) and key in content:
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise SchemaError(f"{file} holds no state dict; expected names and tensors.")
    return dict(content)


def import_weights(
    file: Path,
    out: str,
    *,
    k: int,
    layer: str | None,
    convolution: str | None,
    coordinates: str | None = None,
    norm_first: bool = False,
) -> Checkpoint:
    """Write the checkpoint folder `out` for a published network.

    Args:
        file: the downloaded weights, or the TensorFlow original's variables as .npz.
        k, layer, convolution, norm_first: as for `from_reference_state`; .npz is always norm first.
        coordinates: a key of COORDINATES, which the weights do not say. None: with norm first and nine channels
            the room's, as in the original, else the block's.

    Raises:
        PointloomError: not such a file, channels or classes that no scan gives, or "room" without nine channels.
    """
    if file.suffix == ".npz":
        weights = from_tensorflow_variables(read_tensorflow_variables(file))
        config, weights = with_configuration(
            weights, k=k, layer=layer, convolution=convolution, norm_first=True
        )
    else:
        config, weights = from_reference_state(
            read_reference_state(file), k=k, layer=layer, convolution=convolution, norm_first=norm_first
        )
    if config.in_channels not in FEATURES or config.num_classes != len(PRESETS["s3dis"]):
        raise SchemaError(
            f"{file} takes {config.in_channels} channels and has {config.num_classes} classes; expected "
            f"{' or '.join(map(str, FEATURES))} channels and the {len(PRESETS['s3dis'])} classes of S3DIS."
        )
    if coordinates is None:
        coordinates = "room" if config.norm_first and config.in_channels == 9 else "block"
    config = replace(config, coordinate_channels=COORDINATES[coordinates])
    # Blocks give xyz in half tiles, the published networks took metres: the first product scales.
    takes_features = {"edge": 2, "mr": 2, "sage": 1, "gin": 1}[config.convolution]
    firsts = {"head.nn.linear.weight": [part * config.in_channels for part in range(takes_features)]}
    if config.convolution == "sage":
        firsts["head.pool.linear.weight"] = [0]
    for name, columns in firsts.items():
        weights[name] = weights[name].clone()
        for first in columns:
            weights[name][:, first : first + 3] *= ROOMS.tile_size_m / 2
    checkpoint = Checkpoint(
        network=config,
        state=weights,
        block_config=ROOMS,
        label_scheme=PRESETS["s3dis"],
        features=FEATURES[config.in_channels],
        statistics=FeatureStatistics({}, {}),
        provenance={"imported_from": file.name},
    )
    save_checkpoint(out, checkpoint)
    return checkpoint


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description="Import published DeepGCN weights.")
    parser.add_argument(
        "checkpoint", type=Path, help="the .pth file of deep_gcns_torch, or the TensorFlow variables as .npz"
    )
    parser.add_argument("--out", required=True, help="the checkpoint folder to write")
    parser.add_argument("--k", type=int, default=16, help="neighbours it was trained with (not in the file)")
    parser.add_argument("--layer", choices=["residual", "plain"], help="where the weights leave it open")
    parser.add_argument("--convolution", choices=["edge", "mr"], help="where the weights leave it open")
    parser.add_argument(
        "--coordinates",
        choices=list(COORDINATES),
        help="xyz that the first graph was built on (default: room in the TensorFlow order, else block)",
    )
    parser.add_argument(
        "--norm-first",
        action="store_true",
        help="batch norm before ReLU, eps 1e-3 (TensorFlow order), where the keys do not say so",
    )
    options = parser.parse_args()
    try:
        checkpoint = import_weights(
            options.checkpoint,
            options.out,
            k=options.k,
            layer=options.layer,
            convolution=options.convolution,
            coordinates=options.coordinates,
            norm_first=options.norm_first,
        )
    except PointloomError as error:
        print(error, file=sys.stderr)
        return 1
    network = checkpoint.network
    print(
        f"{options.out}: {network.num_layers} {network.layer} layers of {network.channels} channels, "
        f"{network.convolution} convolution, k = {network.k}, batch norm "
        f"{'before' if network.norm_first else 'after'} ReLU."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
