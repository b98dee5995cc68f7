"""The scans of one run of `preprocess`, looked at before any is decoded."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE
from pyproj import CRS

from pointcloud.blocks.neighbours import find_neighbours, reading_order
from pointcloud.cloud import ScanHeader
from pointcloud.dataset import store
from pointcloud.dataset.preprocessing import PreprocessConfig, agree_on_crs
from pointcloud.errors import PointloomError
from pointcloud.formats.given_crs import GivenCrs
from pointcloud.formats.reader import Window
from pointcloud.storage import inputs, ledger
from pointcloud.storage.ledger import UNCHANGED, UNREACHED, WAITING
from tasks.prefect_ui.survey_map import TileRuns
from tasks.runtime.examining import examine_all
from tasks.runtime.isolation import IsolatedProcesses

STAGE = "preprocess"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanToCut:
    """What a task is told of its scan: the same for one scan among ten and among ten thousand.

    Attributes:
        name, uri: which.
        key: hash of all that its blocks depend on.
        error: why it is quarantined without being read, as for a header that cannot be true; empty: it is read.
    """

    name: str
    uri: str
    key: str
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CuttingPlan:
    """The scans of one run, looked at from outside.

    Attributes:
        sources, keys: by name; a key holds everything that a scan's blocks depend on.
        unreached: scans that storage does not give, and why; they are not in `keys`.
        headers: of those that have one.
        neighbours: scan -> scans that its tiles and halos may reach into.
        errors: scan -> why its header cannot be read.
        records: what the ledger knows.
        plan: what is to do.
        order: of the scans to do, so that neighbours come soon after each other.
        crs: scan -> the CRS that it is read in, of those that are not read in what their files say.
        remarks: sentences about CRSs of several scans.
    """

    sources: dict[str, inputs.Source]
    keys: dict[str, str]
    unreached: dict[str, str]
    headers: dict[str, ScanHeader]
    neighbours: dict[str, list[str]]
    errors: dict[str, str]
    records: dict[str, ledger.Record]
    plan: ledger.Plan
    order: list[str]
    crs: dict[str, CRS] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def states(self) -> dict[str, str]:
        """Scan -> its state before anything is done."""
        states = dict.fromkeys(self.keys, UNCHANGED) | dict.fromkeys(self.unreached, UNREACHED)
        states |= {scan: self.records[scan].state for scan in self.plan.quarantined}
        return states | dict.fromkeys(self.order, WAITING)

    def records_before(self) -> dict[str, ledger.Record]:
        """Scan -> its record before anything is done, of all that belong to the dataset."""
        records = {scan: record for scan, record in self.records.items() if scan in self.keys}
        return records | {
            scan: ledger.Record(stage=STAGE, scan=scan, key="", state=UNREACHED, error=why)
            for scan, why in self.unreached.items()
        }

    def gone(self) -> dict[str, ledger.Record]:
        """The records of scans that are no longer among the inputs."""
        return {scan: self.records[scan] for scan in self.plan.gone}

    def tiles(self) -> dict[str, TileRuns]:
        """Scan -> its tiles, of those that are in the dataset already."""
        return {
            scan: TileRuns.from_dict(record.details["tiles"])
            for scan, record in self.records.items()
            if scan in self.headers and "tiles" in record.details
        }

    def scans_to_cut(self) -> list[ScanToCut]:
        """What each task is told, in the order of the work."""
        return [
            ScanToCut(
                name=scan, uri=self.sources[scan].uri, key=self.keys[scan], error=self.errors.get(scan, "")
            )
            for scan in self.order
        ]

    def needed(self) -> dict[str, list[str]]:
        """Scan that is cut -> the scans whose points that takes."""
        return {scan: [scan, *self.neighbours.get(scan, [])] for scan in self.order if scan in self.headers}


@task(name="examine scans", cache_policy=NO_CACHE)
def examine_scans(
    sources: list[inputs.Source], out: str, config: PreprocessConfig, processes: IsolatedProcesses, num_readers: int,
    retry_quarantined: bool = True, given: GivenCrs | None = None,
) -> CuttingPlan:  # fmt: skip
    """Headers and contents of all scans, who lies beside whom, and what the ledger says is to do.

    Raises:
        StorageError: the ledger cannot be reached.
        PointloomError: nothing in the window.
    """
    unreached: dict[str, str] = {}
    examined = examine_all(sources, processes, num_readers, unreached, given)
    examined, remarks = agree_on_crs(examined, config.block_config)
    if config.window is not None:
        examined = {scan: found for scan, found in examined.items() if _meets(found.header, config.window)}
        if not examined and not unreached:
            raise PointloomError(
                f"no scan has ground in the window {config.window}; it counts in the scans' CRS."
            )
    headers = {scan: found.header for scan, found in examined.items() if found.header is not None}
    neighbours = find_neighbours(headers, config.block_config)
    keys = {
        scan: ledger.key_of(
            STAGE, store.SCHEMA_VERSION, config.to_dict(), found.fingerprint,
            [(other, examined[other].fingerprint) for other in neighbours.get(scan, [])],
        )
        for scan, found in examined.items()
    }  # fmt: skip
    records = {scan: record for scan, record in ledger.read_all(out, STAGE).items() if scan not in unreached}
    plan = ledger.plan(out, keys, records, retry_quarantined)
    todo = set(plan.todo)
    order = [scan for scan in reading_order(headers) if scan in todo]
    errors = {scan: found.error for scan, found in examined.items() if found.header is None}
    order += sorted(todo & errors.keys())
    return CuttingPlan(
        sources={source.name: source for source in sources},
        keys=keys,
        unreached=unreached,
        headers=headers,
        neighbours=neighbours,
        errors=errors,
        records=records,
        plan=plan,
        order=order,
        crs={scan: found.crs for scan, found in examined.items() if found.crs is not None},
        remarks=tuple(remarks),
    )


def _meets(header: ScanHeader | None, window: Window) -> bool:
    """Whether a scan may have points in the window; what cannot be told may."""
    if header is None or header.bounds is None or not np.isfinite(header.bounds).all():
        return True
    low, high = header.bounds[:, :2]
    return bool((low < window[2:]).all() and (high >= window[:2]).all())
