"""The state of a training as safetensors and JSON: reading it runs no code, and no number is rounded."""

from __future__ import annotations

import json
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from pointcloud.errors import SchemaError

WEIGHTS, RECORD = "state.safetensors", "state.json"
_SCHEMA_VERSION = 1
_PLAIN = (str, int, float, bool, type(None))


def pack(state: dict[str, Any]) -> tuple[bytes, bytes]:
    """The contents of `WEIGHTS` and `RECORD`, of what `TrainState.to_dict` gives.

    JSON has no tensors, tuples or numbers as keys, which optimizers' states contain; each is written as an object
    with one key that names its kind. The record holds the size of the weights, so that a file that was cut off is
    recognised (`size_of_weights`).
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _plain(state, tensors)
    weights = safetensors.torch.save(tensors)
    record = {"schema_version": _SCHEMA_VERSION, "num_bytes": len(weights)}
    return weights, json.dumps(record | {"state": tree}).encode()


def unpack(weights: bytes, record: bytes) -> dict[str, Any]:
    """The state that was packed.

    Raises:
        SchemaError: the record or the weights are damaged, or of another version.
    """
    try:
        read = json.loads(record)
        if read["schema_version"] != _SCHEMA_VERSION:
            raise SchemaError(
                f"the state of the training has schema version {read['schema_version']}, this Pointloom reads "
                f"{_SCHEMA_VERSION}; train with fresh=true."
            )
        state = _whole(read["state"], safetensors.torch.load(weights))
    except (ValueError, LookupError, TypeError, SafetensorError) as error:
        raise SchemaError(
            f"the state of the training is damaged ({error}); train with fresh=true."
        ) from error
    return dict(state)


def size_of_weights(record: bytes) -> int:
    """Bytes of the weights that a record belongs to.

    Raises:
        SchemaError: the record is damaged.
    """
    try:
        return int(json.loads(record)["num_bytes"])
    except (ValueError, LookupError, TypeError) as error:
        raise SchemaError(
            f"the state of the training is damaged ({error}); train with fresh=true."
        ) from error


def _plain(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_plain(key, tensors), _plain(each, tensors)] for key, each in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_plain(each, tensors) for each in value]}
    if isinstance(value, list):
        return [_plain(each, tensors) for each in value]
    if not isinstance(value, _PLAIN):
        raise TypeError(f"a training's state holds a {type(value).__name__}, which JSON cannot keep")
    return value


def _whole(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_whole(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_whole(each, tensors) for each in content)
    return {_whole(key, tensors): _whole(each, tensors) for key, each in content}
