"""The plan of a collection of scans, made once for a run: the scans, their neighbours, and what is to do."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from pyproj import CRS

from pointcloud.blocks.neighbours import find_neighbours, reading_order
from pointcloud.cloud import ScanHeader
from pointcloud.dataset.preprocessing import agree_on_crs
from pointcloud.errors import PointloomError, StorageError
from pointcloud.formats.given_crs import GivenCrs
from pointcloud.formats.reader import Window
from pointcloud.grid.block_config import BlockConfig
from pointcloud.storage import contents, inputs, ledger
from pointcloud.storage.ledger import DONE, UNCHANGED, UNREACHED, WAITING
from pointcloud.storage.letter_case import check_case
from tasks.collection.examining import examine_all
from tasks.runtime.isolation import IsolatedProcesses
from tasks.runtime.stage import stage_task

Key = Callable[[str, Sequence[tuple[str, str]]], str]
"""The fingerprint of a scan and those of its neighbours by name -> hash of all that its outcome depends on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanToDo:
    """What the process that works on a scan needs to know; its size does not grow with the collection.

    Attributes:
        name, uri: of the scan.
        key: hash of all that its outcome depends on.
        error: why it is quarantined without being read, as for a header that cannot be true; empty: it is read.
        neighbours: scans whose points its tiles and halos may reach -> their URIs.
        crs: of itself and its neighbours, those that are not read in what their files say -> the CRS as PROJ JSON.
    """

    name: str
    uri: str
    key: str
    error: str = ""
    neighbours: Mapping[str, str] = field(default_factory=dict)
    crs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """The scans of one run, looked at from outside.

    Attributes:
        stage: of the ledger.
        sources, keys: by name; a key holds everything that a scan's outcome depends on.
        headers: of those that have one.
        errors: scan -> why its header cannot be read.
        neighbours: scan -> scans whose points its tiles and halos may reach.
        records: what the ledger knows.
        plan: what is to do.
        order: of the scans to do, so that neighbours come soon after each other; those without a header last.
        unreached: scans that storage does not give, and why; they are not in `keys`.
        crs: scan -> the CRS that it is read in, of those that are not read in what their files say.
        remarks: sentences about CRSs of several scans.
    """

    stage: str
    sources: Mapping[str, inputs.Source]
    keys: Mapping[str, str]
    headers: Mapping[str, ScanHeader]
    neighbours: Mapping[str, list[str]]
    records: Mapping[str, ledger.Record]
    plan: ledger.Plan
    errors: Mapping[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    unreached: Mapping[str, str] = field(default_factory=dict)
    crs: Mapping[str, CRS] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def to_do(self, scan: str) -> ScanToDo:
        """What the process that works on a scan needs to know."""
        beside = self.neighbours.get(scan, [])
        return ScanToDo(
            name=scan,
            uri=self.sources[scan].uri,
            key=self.keys[scan],
            error=self.errors.get(scan, ""),
            neighbours={other: self.sources[other].uri for other in beside},
            crs={each: self.crs[each].to_json() for each in (scan, *beside) if each in self.crs},
        )

    def states(self) -> dict[str, str]:
        """Scan -> its state before anything is done."""
        states, todo = dict.fromkeys(self.unreached, UNREACHED), set(self.plan.todo)
        for scan in self.keys:
            record = None if scan in todo else self.records.get(scan)
            states[scan] = WAITING if record is None else UNCHANGED if record.state == DONE else record.state
        return states

    def records_before(self) -> dict[str, ledger.Record]:
        """Scan -> its record before anything is done, of the scans of this run."""
        records = {scan: record for scan, record in self.records.items() if scan in self.keys}
        return records | {
            scan: ledger.Record(stage=self.stage, scan=scan, key="", state=UNREACHED, error=why)
            for scan, why in self.unreached.items()
        }

    def gone(self) -> dict[str, ledger.Record]:
        """The records of scans that are no longer among the inputs."""
        return {scan: self.records[scan] for scan in self.plan.gone}


def plan_collection(
    stage: str,
    out: str,
    sources: Sequence[inputs.Source],
    config: BlockConfig,
    key: Key,
    processes: IsolatedProcesses,
    num_readers: int,
    *,
    given: GivenCrs | None = None,
    window: Window | None = None,
    only: Sequence[str] = (),
    retry_quarantined: bool = True,
    verify_content: bool = False,
    dry_run: bool = False,
) -> Collection:
    """Look at all scans from outside, and at the ledger.

    Args:
        stage, out: whose ledger, and the folder that it lies in.
        config: how blocks are cut, which says how far a scan reaches into others.
        given: CRSs and units of scans, in place of what their files say.
        window: only scans that may have points in it.
        only: names or globs of the scans that are worked on, quarantined ones too; none: all of them. The others
            stay what they are, and neighbours.
        retry_quarantined: see `ledger.Plan`.
        verify_content: read the bytes of all scans, also of those that look unchanged.
        dry_run: nothing is written, not even what the files held.

    Raises:
        StorageError: the ledger cannot be reached.
        PointloomError: `only` names what is not there, nothing is in the window, or names differ in case alone and
            `out` ignores it.
    """
    check_case((source.name for source in sources), out)
    chosen = set(choose(sources, only))
    before = contents.read_contents(out, stage)
    known = {} if verify_content else before
    examined, unreached = examine_all(sources, processes, num_readers, given or GivenCrs(), known)
    if not dry_run:
        kept = {scan: before[scan] for scan in unreached if scan in before}
        _note(out, stage, before, kept | {scan: one.contents for scan, one in examined.items()})
    examined, remarks = agree_on_crs(examined, config)
    if window is not None:
        examined = {scan: one for scan, one in examined.items() if _meets(one.header, window)}
        if not examined and not unreached:
            raise PointloomError(
                f"no scan has ground in the window {window}; give its corners in the scans' CRS."
            )
    headers = {scan: one.header for scan, one in examined.items() if one.header is not None}
    neighbours = find_neighbours(headers, config)
    keys = {
        scan: key(one.fingerprint, [(n, examined[n].fingerprint) for n in neighbours.get(scan, [])])
        for scan, one in examined.items()
    }
    records = {scan: record for scan, record in ledger.read_all(out, stage).items() if scan not in unreached}
    plan = ledger.plan(
        out,
        {scan: key for scan, key in keys.items() if scan in chosen},
        {scan: record for scan, record in records.items() if not only or scan in chosen},
        retry_quarantined or bool(only),
    )
    todo = set(plan.todo)
    return Collection(
        stage=stage,
        sources={source.name: source for source in sources},
        keys=keys,
        headers=headers,
        errors={scan: one.error for scan, one in examined.items() if one.header is None},
        neighbours=neighbours,
        records=records,
        plan=plan,
        order=(
            *(scan for scan in reading_order(headers) if scan in todo),
            *sorted(todo - headers.keys()),
        ),
        unreached=unreached,
        crs={scan: one.crs for scan, one in examined.items() if one.crs is not None},
        remarks=tuple(remarks),
    )


examine_scans = stage_task("examine scans")(plan_collection)
"""`plan_collection` as a stage of a flow."""


def choose(sources: Sequence[inputs.Source], only: Sequence[str]) -> list[str]:
    """The names of the scans that match names or globs, in which `*` also matches a slash; all without any.

    Raises:
        PointloomError: one of them is the name of no scan.
    """
    names = [source.name for source in sources]
    if not only:
        return names
    chosen: set[str] = set()
    for pattern in only:
        called = pattern.rstrip("/")  # a room is a folder, and shells complete one with a slash
        meant = {name for name in names if name == called or fnmatch.fnmatchcase(name, called)}
        if not meant:
            raise PointloomError(
                f"only names {pattern!r}, and none of the {len(names)} scans, such as {names[0]!r}, has such a "
                "name; give names or globs of scans as the ledger has them."
            )
        chosen |= meant
    return sorted(chosen)


def _note(
    out: str, stage: str, before: Mapping[str, contents.Contents], now: Mapping[str, contents.Contents]
) -> None:
    """Note what the files held, for the next run; where the disk is full, this note may be missing."""
    certain = {scan: {name: one for name, one in of.items() if one.stamp} for scan, of in now.items()}
    certain = {scan: of for scan, of in certain.items() if of}
    if certain != before:
        with suppress(StorageError):
            contents.write_contents(out, stage, certain)


def _meets(header: ScanHeader | None, window: Window) -> bool:
    """Whether a scan may have points in the window; True where its header does not tell."""
    if header is None or header.bounds is None or not np.isfinite(header.bounds).all():
        return True
    low, high = header.bounds[:, :2]
    return bool((low < window[2:]).all() and (high >= window[:2]).all())
