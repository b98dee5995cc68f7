"""The ledger: one small record per scan and stage, which makes a rerun do only what changed.

It lies in the folder that it describes, `<folder>/ledger/<stage>/<scan>.json`, and names what is in there relative to
that folder: the whole can be moved, renamed or copied, also into a bucket, and nothing outside is ever removed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import unquote

from pointcloud import markdown
from pointcloud.errors import StorageError
from pointcloud.storage import files

DONE, QUARANTINED = "done", "quarantined"
WAITING, READING, CUTTING, UNCHANGED = "waiting", "reading", "cutting", "unchanged"
UNREACHED = "unreached"
"""State of a scan that storage did not give or take, though it was waited for: no fault of the scan."""

_READERS = 16  # records read from a bucket at the same time: they wait for its answers, not for a CPU
_NAMED = 20  # scans that a plan names in each of its groups


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What happened to one scan in one stage.

    Attributes:
        stage: name of the stage, such as `segment`.
        scan: name of the scan.
        key: hash of everything that the outcome depends on: input, settings, checkpoint.
        state: `DONE` or `QUARANTINED`.
        points_in: points read.
        points_out: points (or voxels) written.
        seconds: wall time.
        error: why the scan is quarantined, one sentence; else empty.
        path: path of what was written, from the folder that holds the ledger, with plain names and "/"; empty where
            nothing was written.
        details: further figures of the stage, of types that JSON has.
    """

    stage: str
    scan: str
    key: str
    state: str
    points_in: int = 0
    points_out: int = 0
    seconds: float = 0.0
    error: str = ""
    path: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def key_of(*parts: Any) -> str:
    """A stable hash of parts that JSON can hold.

    Raises:
        TypeError: a part of another kind.
    """
    text = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def output_uri(root: str, record: Record) -> str:
    """The URI of what was written of a scan, whose ledger lies in `root`; empty where nothing was."""
    return files.join(root, *record.path.split("/")) if record.path else ""


def write(root: str, record: Record) -> None:
    """Write the record of a scan in place of an older one."""
    files.write_json(_uri(root, record.stage, record.scan), asdict(record))


def discard(root: str, record: Record) -> None:
    """Remove what was written of a scan, and its record. Nothing outside `root` is removed."""
    if record.path:
        files.delete_below(root, record.path)
    files.delete_below(root, _name(record.stage, record.scan))


def read_all(root: str, stage: str) -> dict[str, Record]:
    """Scan -> record of every scan of a stage, from one listing. A damaged record counts as none.

    Raises:
        StorageError: the ledger cannot be listed.
    """
    found = [
        file for file in files.list_files(files.join(root, "ledger", stage), hidden=True)
        if file.name.endswith(".json")
    ]  # fmt: skip
    with ThreadPoolExecutor(1 if files.is_local(root) else _READERS) as readers:
        records = readers.map(_read, [file.uri for file in found])
        return {
            record.scan: record for file, record in zip(found, records, strict=True)
            if record is not None and (record.stage, f"{record.scan}.json") == (stage, file.name)
        }  # fmt: skip


def is_empty(root: str, stage: str) -> bool:
    """Whether nothing is noted of any scan of a stage.

    Raises:
        StorageError: the ledger cannot be reached.
    """
    return not files.list_files(files.join(root, "ledger", stage), hidden=True)


def _name(stage: str, scan: str) -> str:
    return f"ledger/{stage}/{scan}.json"


def _uri(root: str, stage: str, scan: str) -> str:
    return files.join(root, *_name(stage, scan).split("/"))


def _read(uri: str) -> Record | None:
    try:
        fields = files.read_json(uri)
        if "output" in fields:
            fields["path"] = _path_of_earlier_version(fields.pop("output"), fields)
        record = Record(**fields)
    except (StorageError, TypeError, AttributeError, KeyError):
        return None
    return record if _is_sound(record) else None


def _path_of_earlier_version(output: str, fields: Mapping[str, Any]) -> str:
    """The path in a record of Pointloom 0.1, which held a URI: as long as the scan's name, or said in its details."""
    path = fields["details"].get("path", "")
    names = output.split("/")[-1 - fields["scan"].count("/") :]
    if output and not path:
        path = "/".join(map(unquote, names) if "://" in output else names)
    return str(path)


def _is_sound(record: Record) -> bool:
    """Whether each field is of its type, and what it names lies below the folder of the ledger."""
    strings = (record.stage, record.scan, record.key, record.state, record.error, record.path)
    numbers = (record.points_in, record.points_out, record.seconds)
    return (
        all(isinstance(value, str) for value in strings)
        and all(isinstance(value, int | float) for value in numbers)
        and isinstance(record.details, dict)
        and (not record.path or files.is_below(record.path))
    )


@dataclass(frozen=True, kw_only=True, slots=True)
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
        scans = "scan" if len(self.todo) == 1 else "scans"
        return f"{len(self.todo)} {scans} to do ({', '.join(counts) or 'no scans'})"

    def to_markdown(self) -> str:
        """A table of the groups with the names of their first scans."""
        rows = []
        for name, scans, action in self._groups():
            shown = ", ".join(f"`{scan}`" for scan in scans[:_NAMED])
            more = f" and {len(scans) - _NAMED} more" if len(scans) > _NAMED else ""
            rows.append((str(len(scans)), name, action, shown + more))
        table = markdown.table(["scans", "what", "done about it", "names"], rows, align="rl")
        return "\n".join([f"**{self}**", "", *table]) + "\n"

    def _groups(self) -> list[tuple[str, tuple[str, ...], str]]:
        return [
            ("new", self.new, "read"),
            ("changed", self.changed, "read again"),
            ("lost", self.lost, "read again: the output is missing"),
            ("quarantined", self.quarantined, "tried again" if self.retry_quarantined else "left"),
            ("unchanged", self.unchanged, "kept"),
            ("gone", self.gone, "no longer among the inputs"),
        ]


def plan(
    root: str, keys: Mapping[str, str], records: Mapping[str, Record], retry_quarantined: bool = True
) -> Plan:
    """What a run would do with scans, given the records there are.

    Args:
        root: the folder that the ledger lies in.
        keys: scan -> `key_of` it now.
        records: as `read_all` gives them.
        retry_quarantined: see `Plan`.

    Raises:
        StorageError: the folders of the outputs cannot be listed.
    """
    done = [records[scan] for scan, key in keys.items() if _is_done(records.get(scan), key)]
    present = _present(root, {record.path for record in done if record.path})
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
            group = "unchanged" if record.path in present else "lost"
        groups[group].append(scan)
    groups["gone"] = [scan for scan in records if scan not in keys]
    return Plan(
        **{name: tuple(sorted(scans)) for name, scans in groups.items()}, retry_quarantined=retry_quarantined
    )


def _is_done(record: Record | None, key: str) -> bool:
    return record is not None and record.key == key and record.state == DONE


def _present(root: str, paths: Iterable[str]) -> set[str]:
    """Those of the paths that are there, with one listing for each folder instead of a request for each."""
    folders: dict[str, set[str]] = {}
    for path in paths:
        folders.setdefault(path.rpartition("/")[0], set()).add(path)
    present: set[str] = set()
    for folder, members in folders.items():
        uri = files.join(root, *folder.split("/")) if folder else root
        names = {file.name for file in files.list_files(uri, recursive=False, hidden=True)}
        present |= {path for path in members if path.rpartition("/")[2] in names}
    return present
