"""Where Ray Train keeps the epochs of a training, `runs/` below its checkpoint, and what a training goes on from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pyarrow import fs

from models.training.state_record import RECORD, WEIGHTS, unpack
from pointcloud.errors import StorageError
from pointcloud.storage import files, ledger

_SNAPSHOT = "checkpoint_manager_snapshot.json"
_FRESH = "fresh.json"


@dataclass(frozen=True)
class TrainRun:
    """The epochs of one training of the checkpoint `out`, as Ray Train keeps them: the last two, and a note of them.

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

    def noted(self) -> list[str] | None:
        """URIs of the epochs that Ray Train goes on from, the last one last; None where it noted nothing readable."""
        try:
            note = files.read_json(files.join(self.folder, _SNAPSHOT))
            names = [str(each["checkpoint_dir_name"]) for each in note["checkpoint_results"]]
        except (StorageError, LookupError, TypeError):
            return None
        found = [files.join(self.folder, name) for name in names]
        return found if all(map(_is_whole, found)) else None

    def last(self) -> str | None:
        """URI of the epoch that the training goes on from; None where it starts anew."""
        noted = self.noted()
        if noted is None:
            return max((uri for uri in self._epochs() if _is_whole(uri)), default=None)
        return noted[-1] if noted else None

    def epochs_done(self) -> int:
        """How many epochs are kept."""
        last = self.last()
        return 0 if last is None else int(files.read_json(files.join(last, RECORD))["epochs"])

    def mend(self, logger: Any) -> str | None:
        """Make ready for Ray Train to go on; URI of the epoch to go on from where Ray Train does not know itself.

        Ray Train writes its note in place: a kill or a full disk may leave half of one, with which it would never
        start again. Such a note is set aside. What it did not get to note, or to finish, is removed.
        """
        note, noted, last = files.join(self.folder, _SNAPSHOT), self.noted(), self.last()
        if noted is None and files.exists(note):
            files.write_bytes(f"{note}.damaged", files.read_bytes(note))
            files.delete(note)
            logger.warning(
                "Ray Train's note of the epochs in %s was damaged and is set aside; the training %s", self.folder,
                f"goes on from epoch {self.epochs_done()}" if last else "starts anew",
            )  # fmt: skip
        for uri in self._epochs():
            if uri != last and uri not in (noted or []):
                _remove(uri)
        return last if noted is None else None

    def _epochs(self) -> list[str]:
        return [uri for uri in _folders(self.folder) if files.name_of(uri).startswith("checkpoint_")]


def run_of(out: str, key: str, fresh: bool) -> TrainRun:
    """The run that a training with this key goes on with, or begins.

    With `fresh` a new one, which is remembered until `finish`: killed, it is gone on with as others are.
    """
    marker = files.join(out, "runs", _FRESH)
    try:
        known = files.read_json(marker)
        if known["key"] == key:
            return TrainRun(out, str(known["name"]))
    except (StorageError, LookupError, TypeError):
        pass  # there is none, or half of one from another Pointloom
    if not fresh:
        return TrainRun(out, key)
    name = f"{key}-{ledger.key_of(sorted(map(files.name_of, _folders(files.join(out, 'runs')))))[:8]}"
    files.write_json(marker, {"key": key, "name": name})
    return TrainRun(out, name)


def forget_fresh(out: str) -> None:
    """The next training that is to start anew does."""
    files.delete(files.join(out, "runs", _FRESH))


def finish(run: TrainRun) -> None:
    """The run has given its checkpoint: those of other settings, which it has replaced, are removed."""
    forget_fresh(run.out)
    for uri in _folders(files.join(run.out, "runs")):
        if files.name_of(uri) != run.name:
            _remove(uri)


def read_state(epoch: str) -> dict[str, Any]:
    """The record of a `TrainState` that was kept under this URI. Raises SchemaError, StorageError."""
    return unpack(files.read_bytes(files.join(epoch, WEIGHTS)), files.read_bytes(files.join(epoch, RECORD)))


def _is_whole(epoch: str) -> bool:
    """Whether all of an epoch has arrived."""
    try:
        record = json.loads(files.read_bytes(files.join(epoch, RECORD)))
        return bool(record["num_bytes"] == files.size(files.join(epoch, WEIGHTS)))
    except (StorageError, ValueError, LookupError, TypeError):
        return False


def _folders(uri: str) -> list[str]:
    filesystem, path = files.resolve(uri)
    infos = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(files.join(uri, info.base_name) for info in infos if info.type == fs.FileType.Directory)


def _remove(folder: str) -> None:
    filesystem, path = files.resolve(folder)
    filesystem.delete_dir(path)
