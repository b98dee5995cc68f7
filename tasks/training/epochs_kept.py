"""The epochs of a training, in `runs/` below its checkpoint: written by its first Ray worker, read when it goes on.

OUT/runs/NAME/run.json                        written by the driver when the training starts
OUT/runs/NAME/epoch_0007/state.safetensors    the tensors of the state after seven epochs
OUT/runs/NAME/epoch_0007/state.json           the rest of the state; written last, so its epoch is complete
OUT/runs/fresh.json                           which run a training with `fresh` has begun, until it ends
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from models.training.state_record import RECORD, WEIGHTS, pack, size_of_weights, unpack
from pointcloud.errors import SchemaError, StorageError
from pointcloud.storage import files, ledger
from pointcloud.storage.filesystem import attempt, resolve

_START = "run.json"
_FRESH = "fresh.json"
_EPOCH = re.compile(r"epoch_(\d+)")
# The newest is what a training goes on from; the one before it, where the newest turns out to be damaged.
_NUM_KEPT = 2
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainRun:
    """One training of the checkpoint `out`, with the epochs it has kept.

    Attributes:
        out: folder or URI of the checkpoint.
        name: of the run among those of the same checkpoint.
    """

    out: str
    name: str

    @cached_property
    def folder(self) -> str:
        """Where the epochs of this training are kept."""
        return files.join(self.out, "runs", self.name)

    def start(self) -> None:
        """Write `run.json`, by which Ray workers see that they share the folder with the driver."""
        files.write_json(files.join(self.folder, _START), {"run": self.name})

    def is_shared(self) -> bool:
        """Whether this process sees the folder that the driver has started."""
        return files.exists(files.join(self.folder, _START))

    def keep(self, state: dict[str, Any]) -> None:
        """Write the state after an epoch, as `TrainState.to_dict` gives it, and remove all epochs but the last two.

        Raises:
            StorageError: the folder cannot be written.
        """
        weights, record = pack(state)
        epoch = files.join(self.folder, f"epoch_{len(state['history']):04d}")
        files.write_bytes(files.join(epoch, WEIGHTS), weights)
        files.write_bytes(files.join(epoch, RECORD), record)
        for old in self._epochs()[:-_NUM_KEPT]:
            try:
                _remove(old)
            except StorageError as error:
                _LOG.warning("an old epoch could not be removed: %s", error)

    def newest(self) -> str | None:
        """URI of the newest complete epoch; None where there is none."""
        return next(filter(_is_complete, reversed(self._epochs())), None)

    def epochs_done(self) -> int:
        """How many epochs of the training are done, by its newest complete one."""
        newest = self.newest()
        return 0 if newest is None else _number(newest)

    def _epochs(self) -> list[str]:
        """URIs of the epochs' folders, the oldest first."""
        return sorted(filter(_number, _folders(self.folder)), key=_number)


def run_of(out: str, key: str, fresh: bool) -> TrainRun:
    """The run that a training with this key continues or starts.

    With `fresh` it is a new one. `fresh.json` remembers it until `finish`, so that it too continues when interrupted.
    """
    marker = files.join(out, "runs", _FRESH)
    try:
        known = files.read_json(marker)
        if known["key"] == key:
            return TrainRun(out, str(known["name"]))
    except (StorageError, LookupError, TypeError):
        pass  # missing, or written by another version
    if not fresh:
        return TrainRun(out, key)
    earlier = sorted(map(files.name_of, _folders(files.join(out, "runs"))))
    name = f"{key}-{ledger.key_of(earlier)[:8]}"
    files.write_json(marker, {"key": key, "name": name})
    return TrainRun(out, name)


def forget_fresh(out: str) -> None:
    """Let the next training with `fresh` start a new run."""
    files.delete(files.join(out, "runs", _FRESH))


def finish(run: TrainRun) -> None:
    """Remove the runs that this one replaces, now that it has given its checkpoint."""
    forget_fresh(run.out)
    for uri in _folders(files.join(run.out, "runs")):
        if files.name_of(uri) != run.name:
            _remove(uri)


def read_state(epoch: str) -> dict[str, Any]:
    """The state that `TrainRun.keep` wrote under this URI. Raises SchemaError, StorageError."""
    return unpack(files.read_bytes(files.join(epoch, WEIGHTS)), files.read_bytes(files.join(epoch, RECORD)))


def _is_complete(epoch: str) -> bool:
    """Whether the record is there and the weights have the size it names: a crash may cut off the newest file."""
    try:
        expected = size_of_weights(files.read_bytes(files.join(epoch, RECORD)))
        return expected == files.size(files.join(epoch, WEIGHTS))
    except (StorageError, SchemaError):
        return False


def _number(folder: str) -> int:
    """N of `epoch_N`; 0 for other folders."""
    match = _EPOCH.fullmatch(files.name_of(folder))
    return int(match[1]) if match else 0


def _folders(uri: str) -> list[str]:
    """URIs of the folders in a folder that hold files, by name."""
    names = {file.name.split("/")[0] for file in files.list_files(uri, hidden=True) if "/" in file.name}
    return [files.join(uri, name) for name in sorted(names)]


def _remove(folder: str) -> None:
    filesystem, path = resolve(folder)
    attempt("remove", folder, lambda: filesystem.delete_dir(path))
