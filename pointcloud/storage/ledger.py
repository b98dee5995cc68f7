"""The ledger: one small record per scan and stage, which makes a rerun do only what changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from pointcloud.errors import StorageError
from pointcloud.storage import files

DONE, QUARANTINED = "done", "quarantined"
_READERS = 16  # records read from a bucket at the same time: they wait for its answers, not for a CPU
_NAMED = 20  # scans that a plan names in each of its groups


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
    return files.join(root, "ledger", stage, f"{scan}.json")


def write(root: str, record: Record) -> None:
    """Write the record of a scan in place of an older one."""
    files.write_json(_uri(root, record.stage, record.scan), asdict(record))


def remove(root: str, record: Record) -> None:
    """Forget a scan's record."""
    files.delete(_uri(root, record.stage, record.scan))


def read_all(root: str, stage: str) -> dict[str, Record]:
    """Scan -> record of every scan of a stage, from one listing. A damaged record is as good as none.

    Raises:
        StorageError: the ledger cannot be listed.
    """
    folder = files.join(root, "ledger", stage)
    uris = [file.uri for file in files.list_files(folder, hidden=True) if file.name.endswith(".json")]
    with ThreadPoolExecutor(1 if files.is_local(root) else _READERS) as readers:
        return {record.scan: record for record in readers.map(_read, uris) if record is not None}


def _read(uri: str) -> Record | None:
    try:
        return Record(**files.read_json(uri))
    except (StorageError, TypeError):
        return None


@dataclass(frozen=True)
class Plan:
    """What a run would do, scan by scan; every scan is in one group, by name.

    Attributes:
        new: scans without a record.
        changed: scans whose input or settings are other than when they were done.
        lost: done with this input and these settings, but what was written is no longer there.
        quarantined: could not be read with this input and these settings.
        unchanged: done, and nothing is to do.
        gone: scans with a record that are not among the inputs any more.
        retry_quarantined: whether the quarantined ones are tried again. They are by default: trying costs one
            read, and the cause may have been the machine, or a defect of a Pointloom before this one.
    """

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    quarantined: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    retry_quarantined: bool = True

    @property
    def todo(self) -> tuple[str, ...]:
        """The scans to work on, by name."""
        retried = self.quarantined if self.retry_quarantined else ()
        return tuple(sorted(self.new + self.changed + self.lost + retried))

    def __str__(self) -> str:
        counts = [f"{len(scans)} {name}" for name, scans, _ in self._groups() if scans]
        return f"{len(self.todo)} scans to do ({', '.join(counts) or 'no scans'})"

    def to_markdown(self) -> str:
        """A table of the groups with the names of their first scans."""
        lines = [f"**{self}**", "", "| scans | what | done about it | names |", "| ---: | --- | --- | --- |"]
        for name, scans, action in self._groups():
            shown = ", ".join(f"`{scan.replace('|', chr(92) + '|')}`" for scan in scans[:_NAMED])
            more = f" and {len(scans) - _NAMED} more" if len(scans) > _NAMED else ""
            lines.append(f"| {len(scans)} | {name} | {action} | {shown}{more} |")
        return "\n".join(lines) + "\n"

    def _groups(self) -> list[tuple[str, tuple[str, ...], str]]:
        return [
            ("new", self.new, "read"),
            ("changed", self.changed, "read again"),
            ("lost", self.lost, "read again: the output is missing"),
            ("quarantined", self.quarantined, "tried again" if self.retry_quarantined else "left"),
            ("unchanged", self.unchanged, "kept"),
            ("gone", self.gone, "no longer among the inputs"),
        ]


def plan(keys: Mapping[str, str], records: Mapping[str, Record], retry_quarantined: bool = True) -> Plan:
    """What a run would do with scans (name -> `key_of` it now), given the records there are (`read_all`).

    Raises:
        StorageError: the folders of the outputs cannot be listed.
    """
    done = [records[scan] for scan, key in keys.items() if _is_done(records.get(scan), key)]
    there = _present(record.output for record in done)
    groups: dict[str, list[str]] = {
        name: [] for name in Plan.__dataclass_fields__ if name != "retry_quarantined"
    }
    for scan, key in keys.items():
        record = records.get(scan)
        if record is None:
            group = "new"
        elif record.key != key:
            group = "changed"
        elif record.state == QUARANTINED:
            group = "quarantined"
        else:
            group = "unchanged" if record.output in there else "lost"
        groups[group].append(scan)
    groups["gone"] = [scan for scan in records if scan not in keys]
    return Plan(
        **{name: tuple(sorted(scans)) for name, scans in groups.items()}, retry_quarantined=retry_quarantined
    )


def _is_done(record: Record | None, key: str) -> bool:
    return record is not None and record.key == key and record.state == DONE


def _present(outputs: Iterable[str]) -> set[str]:
    """Those of the outputs that are there, with one listing for each folder instead of a request for each."""
    folders: dict[str, list[str]] = {}
    for output in outputs:
        if output:
            folders.setdefault(output.rpartition("/")[0] or ".", []).append(output)
    found: set[str] = set()
    for folder, members in folders.items():
        names = {file.name for file in files.list_files(folder, recursive=False, hidden=True)}
        found.update(output for output in members if files.name_of(output) in names)
    return found


WAITING = "waiting"


READING = "reading"


CUTTING = "cutting"


UNCHANGED = "unchanged"


UNREACHED = "unreached"
"""State of a scan that storage did not give or take, though it was waited for: no fault of the scan."""
