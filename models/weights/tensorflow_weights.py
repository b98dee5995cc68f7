"""Variables of the TensorFlow original (lightaime/deep_gcns) under this project's keys.

TensorFlow is not needed here. Where it is, its checkpoint becomes a file of arrays with

    reader = tf.train.load_checkpoint("epoch_best.ckpt")
    numpy.savez("epoch_best.npz", **{v: reader.get_tensor(v) for v in reader.get_variable_to_shape_map()})

Source: gcn_lib/tf_vertex.py, utils/tf_util.py and sem_seg/model.py there, read for the names and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from pointcloud.errors import PointloomError, SchemaError

NORM_EPS = 1e-3
"""What its batch norm adds to the variance."""

_SCOPES = (
    (r"^adj_conv_0(?=/|_)", "head"),
    (r"^adj_conv_(\d+)(?=/|_)", lambda found: f"backbone.{int(found[1]) - 1}.conv"),
    (r"^adj_conv_final/", "fusion.nn/"),
    (r"^seg/conv1/", "prediction.first/"),
    (r"^seg/conv2/", "prediction.second/"),
    (r"^(head|backbone\.\d+\.conv)/", r"\1.nn/"),
    (r"^(head|backbone\.\d+\.conv)_aggr/", r"\1.pool/"),
    (r"^(head|backbone\.\d+\.conv)_epsilon$", r"\1.epsilon"),
    (r"^seg/conv3/weights$", "prediction.classes.weight"),
    (r"^seg/conv3/biases$", "prediction.classes.bias"),
    (r"/weights$", ".linear.weight"),
    (r"/biases$", ".linear.bias"),
    (r"/bn/gamma$", ".norm.weight"),
    (r"/bn/beta$", ".norm.bias"),
    (r"/bn/pop_mean$", ".norm.running_mean"),
    (r"/bn/pop_var$", ".norm.running_var"),
)
"""Its variable names -> this project's keys, in this order."""

_TRAINING = re.compile(r"/Adam(_1)?$|/Momentum$|^beta[12]_power$|^Variable(_\d+)?$")
"""What the optimizer kept, and the number of the step."""


def read_tensorflow_variables(file: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by their variables' names; pickled objects in it are refused, not run.

    Raises:
        PointloomError: no such file, or no arrays in it.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, BadZipFile) as error:
        reason = str(error).split("\n")[0]
        raise PointloomError(f"{file} cannot be read as arrays: {reason}") from error


def from_tensorflow_variables(variables: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Weights of the network, name -> tensor, as `models.network.deepgcn.DeepGCN` has them.

    Args:
        variables: name -> array; a product is (1, 1, C, C') there and (C', C) here.

    Raises:
        SchemaError: a variable that is not one of the original's.
    """
    weights: dict[str, Tensor] = {}
    for variable, value in variables.items():
        key = variable.removesuffix(":0")
        if _TRAINING.search(key):
            continue
        for pattern, replacement in _SCOPES:
            key = re.sub(pattern, replacement, key)
        if "/" in key or not key.startswith(("head.", "backbone.", "fusion.", "prediction.")):
            raise SchemaError(f"variable {variable!r} is not one of the TensorFlow DeepGCN's.")
        if value.ndim == 4 and value.shape[:2] == (1, 1):
            value = value[0, 0].T
        weights[key] = torch.from_numpy(np.array(value, np.float32, order="C"))
        if key.endswith("running_mean"):
            weights[key.replace("running_mean", "num_batches_tracked")] = torch.tensor(0)
    return _in_our_order(weights)


def _in_our_order(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A dense layer of the original gives [body, x], ours [x, body]: the columns that take it trade places.

    What every layer adds lies newest first there, oldest first here, so that groups of C columns are turned
    round, for every table of features that a product takes side by side.
    """
    channels = len(weights.get("head.nn.linear.weight", ()))
    fusion = weights.get("fusion.nn.linear.weight")
    depth = 1 + sum(bool(re.fullmatch(r"backbone\.\d+\.conv\.nn\.linear\.weight", key)) for key in weights)
    if fusion is None or fusion.ndim != 2 or fusion.shape[1] != channels * depth * (depth + 1) // 2:
        return weights  # not dense, or not complete, which is checked elsewhere
    every_layer, turned = list(range(1, depth + 1)), dict(weights)
    for key, weight in weights.items():
        if found := re.fullmatch(r"(backbone\.(\d+)\.conv)\.(?:nn|pool)\.linear\.weight", key):
            groups = int(found[2]) + 1
            # GraphSAGE's maxima come from its pool, whose outputs have an order of their own: x alone turns.
            tables = (
                1 if f"{found[1]}.pool.linear.weight" in weights else weight.shape[1] // (groups * channels)
            )
            turned[key] = _turned(weight, [groups] * tables, channels)
        elif key == "fusion.nn.linear.weight":
            turned[key] = _turned(weight, every_layer, channels)
        elif key == "prediction.first.linear.weight":
            turned[key] = _turned(weight, every_layer, channels, start=weight.shape[1] - fusion.shape[1])
    return turned


def _turned(weight: Tensor, tables: list[int], channels: int, start: int = 0) -> Tensor:
    """(C', C''): from column `start`, every table's groups of C columns the other way round; others stay."""
    columns = torch.arange(weight.shape[1])
    for groups in tables:
        end = start + groups * channels
        columns[start:end] = columns[start:end].view(groups, channels).flip(0).flatten()
        start = end
    return weight[:, columns]
