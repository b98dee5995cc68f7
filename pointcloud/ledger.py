"""The ledger: one small record per scan and stage, which makes a rerun do only what changed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from pointcloud import storage
from pointcloud.errors import StorageError

DONE, QUARANTINED = "done", "quarantined"


@dataclass(frozen=True)
class Record:
    """What happened to one scan in one stage.

    Attributes:
        stage, scan: which.
        key: hash of everything the outcome depends on (input, config, checkpoint).
        state: `DONE` or `QUARANTINED`.
        points_in, points_out: points read, points (or voxels) written.
        seconds: wall time.
        error: why it is quarantined, one sentence.
        output: URI of what was written.
        details: what the stage wants to remember, JSON-able.
    """

    stage: str
    scan: str
    key: str
    state: str
    points_in: int = 0
    points_out: int = 0
    seconds: float = 0.0
    error: str = ""
    output: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def key_of(*parts: Any) -> str:
    """A stable hash of JSON-able parts."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _uri(root: str, stage: str, scan: str) -> str:
    return storage.join(root, "ledger", stage, f"{scan}.json")


def write(root: str, record: Record) -> None:
    storage.write_json(_uri(root, record.stage, record.scan), asdict(record))


def find_done(root: str, stage: str, scan: str, key: str) -> Record | None:
    """The record of finished work with this key, if there is one and its output is still there."""
    try:
        record = Record(**storage.read_json(_uri(root, stage, scan)))
    except (StorageError, TypeError):
        return None
    if record.key != key or record.state != DONE or not record.output or not storage.exists(record.output):
        return None
    return record
