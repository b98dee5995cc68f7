"""Checkpoints: a folder with safetensors weights and one JSON that says all that segmenting needs to know.

torch is imported with the weights only: a flow that hands the work to actors reads the record alone, without torch.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from models.network.configurations import DeepGCNConfig
from pointcloud.blocks.features import FEATURES, STANDARDISED, FeatureStatistics, check_features, num_channels
from pointcloud.errors import PointloomError, SchemaError, StorageError, one_line
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labels import LabelScheme
from pointcloud.quality.drift import Seen
from pointcloud.storage import files

if TYPE_CHECKING:
    import torch

    from models.network.deepgcn import DeepGCN

SCHEMA_VERSION = 1
RECORD = "checkpoint.json"
_WEIGHTS = re.compile(r"weights-[0-9a-f]{16}\.safetensors")  # never a path that leads out of the folder


_FAMILIARITY = "familiarity."  # before the names of its tensors, among the weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Familiarity:
    """What the training looks like in the network's last features, see `models.familiarity`.

    Attributes:
        means: (K, D) of the classes, whitened.
        whitening: (D, D) that features are multiplied with.
        limit: the mean distance of a tile from which it is unlike the training; 1 is usual there.
    """

    means: torch.Tensor
    whitening: torch.Tensor
    limit: float


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained network and everything it was trained with.

    Attributes:
        network: the architecture.
        state: the weights, name -> tensor; empty when only the record was read.
        block_config: the sizes of the blocks that it learnt from.
        label_scheme: the classes of the network.
        features: the input channels of the network, by name.
        statistics: mean and standard deviation that standardise the input.
        metrics: validation scores of these weights.
        history: one record per epoch of training.
        provenance: dataset, settings, versions.
        seen: what the training blocks look like; None where it is not known.
        familiarity: where the points of the training lie in the last features of the network; None where it is not
            known.
        temperature: logits are divided by it, so that a confidence is the share of points that are right (Guo et al.,
            "On Calibration of Modern Neural Networks", ICML 2017).

    Raises:
        SchemaError: features, statistics, classes and network that do not fit each other.
    """

    network: DeepGCNConfig
    state: dict[str, torch.Tensor]
    block_config: BlockConfig
    label_scheme: LabelScheme
    features: tuple[str, ...]
    statistics: FeatureStatistics
    metrics: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    seen: Seen | None = None
    familiarity: Familiarity | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_features(self.features)
        made, taken = num_channels(self.features), self.network.in_channels
        if made != taken:
            raise SchemaError(
                f"features {', '.join(self.features)} make {made} channels, the network takes {taken}."
            )
        needed = [name for name in STANDARDISED if any(name in (f, *FEATURES[f][0]) for f in self.features)]
        missing = sorted({*needed} - (self.statistics.mean.keys() & self.statistics.std.keys()))
        if missing:
            raise SchemaError(f"the statistics lack {', '.join(missing)}, which the features need.")
        if not 0 < self.temperature < math.inf:
            raise SchemaError(f"temperature must be positive, found {self.temperature}.")
        if len(self.label_scheme) != self.network.num_classes:
            raise SchemaError(
                f"label scheme {self.label_scheme.name!r} has {len(self.label_scheme)} classes, the network "
                f"{self.network.num_classes}."
            )

    @property
    def unfinished(self) -> str:
        """Why these weights are not the last of their training, a part of a sentence; empty where they are."""
        if "unfinished" in self.provenance:
            return "its training has not finished"
        if "stopped" in self.provenance:
            return "its training was stopped before its end"
        return ""

    def build_network(self) -> DeepGCN:
        """The network with these weights, in evaluation mode.

        Raises:
            SchemaError: weights that are not this architecture's.
        """
        from models.network.deepgcn import DeepGCN

        network = DeepGCN(self.network)
        try:
            network.load_state_dict(self.state)
        except RuntimeError as error:
            reason = one_line(error)[:300]
            raise SchemaError(f"the weights do not fit the network of the checkpoint: {reason}") from error
        return network.eval()


def save_checkpoint(uri: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint folder.

    The record is written last and names the weights by hash, so that what a reader sees is either the old
    checkpoint or the new one.
    """
    import safetensors.torch

    known, tensors = checkpoint.familiarity, dict(checkpoint.state)
    trust: dict[str, Any] = {} if checkpoint.temperature == 1 else {"temperature": checkpoint.temperature}
    if known is not None:
        tensors |= {f"{_FAMILIARITY}means": known.means, f"{_FAMILIARITY}whitening": known.whitening}
        trust["familiarity"] = {"limit": known.limit}
    weights = safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    file = _file_name(weights)
    record_uri = files.join(uri, RECORD)
    old = _weights_before(record_uri)
    files.write_bytes(files.join(uri, file), weights)
    files.write_json(
        record_uri,
        {
            "schema_version": SCHEMA_VERSION,
            "weights": file,
            "network": checkpoint.network.to_dict(),
            "block_config": checkpoint.block_config.to_dict(),
            "label_scheme": checkpoint.label_scheme.to_dict(),
            "features": list(checkpoint.features),
            "statistics": checkpoint.statistics.to_dict(),
            "metrics": checkpoint.metrics,
            "history": checkpoint.history,
            "provenance": checkpoint.provenance,
            "seen": None if checkpoint.seen is None else checkpoint.seen.to_dict(),
            **trust,
        },
    )
    if old not in (None, file):
        files.delete(files.join(uri, old))


def _weights_before(record_uri: str) -> str | None:
    """The weights file of the checkpoint that is there now; None where there is none, or a damaged one."""
    try:
        old = files.read_json(record_uri)["weights"]
    except (StorageError, LookupError, TypeError):
        return None
    return old if isinstance(old, str) and _WEIGHTS.fullmatch(old) else None


def read_checkpoint(uri: str, weights: bool = True, expect: str | None = None) -> Checkpoint:
    """A checkpoint folder; nothing in it can run code.

    Args:
        uri: the folder.
        weights: False reads the record alone.
        expect: `fingerprint` of the checkpoint that was read before and is wanted again.

    Raises:
        StorageError: nothing there, or not readable.
        SchemaError: another schema version, a damaged record, weights that are not safetensors or not those that the
            record names, or another checkpoint than expected.
    """
    try:
        checkpoint = _read(uri, weights)
    except PointloomError:
        # This also explains missing weights: those of the next epoch took their place.
        _check_identity(uri, expect)
        raise
    _check_identity(uri, expect)
    return checkpoint


def _read(uri: str, weights: bool) -> Checkpoint:
    record_uri = files.join(uri, RECORD)
    _check_exists(uri)
    record = files.read_json(record_uri)
    version = record.get("schema_version") if isinstance(record, dict) else None
    if version != SCHEMA_VERSION:
        raise SchemaError(
            f"checkpoint {uri!r} has schema version {version}, this Pointloom reads {SCHEMA_VERSION}; train "
            "it again or use the Pointloom that wrote it."
        )
    try:
        _check_types(record)
        state = {}
        if weights:
            import safetensors.torch

            file = record["weights"]
            if not _WEIGHTS.fullmatch(file):
                raise SchemaError(
                    f"checkpoint {uri!r} names weights {file!r}, which is not the name of a weights file."
                )
            content = files.read_bytes(files.join(uri, file))
            if _file_name(content) != file:
                raise SchemaError(
                    f"checkpoint {uri!r} is damaged: {file} does not hold what its name says; copy it again."
                )
            state = safetensors.torch.load(content)
        known = {name: state.pop(name) for name in list(state) if name.startswith(_FAMILIARITY)}
        familiarity = None
        if known:
            familiarity = Familiarity(
                means=known[f"{_FAMILIARITY}means"],
                whitening=known[f"{_FAMILIARITY}whitening"],
                limit=float(record["familiarity"]["limit"]),
            )
        return Checkpoint(
            network=DeepGCNConfig.from_dict(record["network"]),
            state=state,
            block_config=BlockConfig.from_dict(record["block_config"]),
            label_scheme=LabelScheme.from_dict(record["label_scheme"]),
            features=tuple(record["features"]),
            statistics=FeatureStatistics.from_dict(record["statistics"]),
            metrics=record["metrics"],
            history=record["history"],
            provenance=record["provenance"],
            seen=None if record.get("seen") is None else Seen.from_dict(record["seen"]),
            familiarity=familiarity,
            temperature=float(record.get("temperature", 1.0)),
        )
    except (KeyError, TypeError, SafetensorError) as error:
        raise SchemaError(
            f"checkpoint {uri!r} is damaged ({error}); train it again or copy it again."
        ) from error


def _check_types(record: dict[str, Any]) -> None:
    """Look at what no class of its own checks.

    Raises:
        KeyError, TypeError: a part that is missing, or is not of the type that `save_checkpoint` writes.
    """
    for name, expected in (("weights", str), ("metrics", dict), ("history", list), ("provenance", dict)):
        if not isinstance(record[name], expected):
            raise TypeError(f"{name} is {type(record[name]).__name__}, expected {expected.__name__}")
    if not all(isinstance(epoch, dict) for epoch in record["history"]):
        raise TypeError("history holds an epoch that is no mapping")


def _check_identity(uri: str, expect: str | None) -> None:
    if expect is not None and fingerprint(uri) != expect:
        raise SchemaError(
            f"checkpoint {uri!r} was replaced after this run had begun with it, as a training does after every better "
            "epoch; wait until the training has finished or copy the checkpoint, and start again."
        )


def _file_name(weights: bytes) -> str:
    return f"weights-{hashlib.blake2b(weights, digest_size=8).hexdigest()}.safetensors"


def fingerprint(uri: str) -> str:
    """What identifies a checkpoint: the hash of its record, which holds the hash of its weights.

    Raises:
        SchemaError: no checkpoint there.
        StorageError: not readable.
    """
    _check_exists(uri)
    return files.content_hash(files.join(uri, RECORD))


def _check_exists(uri: str) -> None:
    if not files.exists(files.join(uri, RECORD)):
        raise SchemaError(
            f"no checkpoint at {uri!r} (no {RECORD} in it); give the folder that the train flow wrote."
        )
