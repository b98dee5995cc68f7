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
from pointcloud.dataset.recipe import Recipe, agree_on_crs
from pointcloud.errors import PointloomError
from pointcloud.formats.given_crs import GivenCrs
from pointcloud.formats.reader import Window
from pointcloud.storage import files, ledger
from pointcloud.storage.ledger import UNCHANGED, WAITING
from tasks.prefect_ui.survey_map import TileRuns
from tasks.runtime.examining import examine_all
from tasks.runtime.isolation import IsolatedProcesses

STAGE = "preprocess"


@dataclass(frozen=True)
class Survey:
    """The scans of one run, looked at from outside.

    Attributes:
        sources, keys: by name; a key holds everything that a scan's blocks depend on.
        headers: of those that have one.
        neighbours: scan -> scans that its tiles and halos may reach into.
        errors: scan -> why its header cannot be read.
        records: what the ledger knows.
        plan: what is to do.
        order: of the scans to do, so that neighbours come soon after each other.
        crs: scan -> the CRS that it is read in, of those that are not read in what their files say.
        remarks: sentences about CRSs of several scans.
    """

    sources: dict[str, files.Source]
    keys: dict[str, str]
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
        kept = {scan: self.records[scan].state for scan in self.plan.quarantined}
        return {scan: WAITING if scan in set(self.order) else kept.get(scan, UNCHANGED) for scan in self.keys}

    def tiles(self) -> dict[str, TileRuns]:
        """Scan -> its tiles, of those that are in the dataset already."""
        return {
            scan: TileRuns.from_dict(record.details["tiles"])
            for scan, record in self.records.items()
            if scan in self.headers and "tiles" in record.details
        }

    def needed(self) -> dict[str, list[str]]:
        """Scan that is cut -> the scans whose points that takes."""
        return {scan: [scan, *self.neighbours.get(scan, [])] for scan in self.order if scan in self.headers}


@task(name="examine scans", cache_policy=NO_CACHE)
def examine_scans(
    sources: list[files.Source], out: str, recipe: Recipe, processes: IsolatedProcesses, num_readers: int,
    retry_quarantined: bool = True, given: GivenCrs | None = None,
) -> Survey:  # fmt: skip
    """Headers and contents of all scans, who lies beside whom, and what the ledger says is to do.

    Raises:
        StorageError: a scan or the ledger cannot be reached.
        PointloomError: nothing in the window.
    """
    examined = examine_all(sources, processes, num_readers, given=given)
    examined, remarks = agree_on_crs(examined, recipe.config)
    if recipe.window is not None:
        examined = {scan: found for scan, found in examined.items() if _meets(found.header, recipe.window)}
        if not examined:
            raise PointloomError(
                f"no scan has ground in the window {recipe.window}; it counts in the scans' CRS."
            )
    headers = {scan: found.header for scan, found in examined.items() if found.header is not None}
    neighbours = find_neighbours(headers, recipe.config)
    keys = {
        scan: ledger.key_of(
            STAGE, store.SCHEMA_VERSION, recipe.to_dict(), found.fingerprint,
            [(other, examined[other].fingerprint) for other in neighbours.get(scan, [])],
        )
        for scan, found in examined.items()
    }  # fmt: skip
    records = ledger.read_all(out, STAGE)
    plan = ledger.plan(keys, records, retry_quarantined)
    todo = set(plan.todo)
    order = [scan for scan in reading_order(headers) if scan in todo]
    errors = {scan: found.error for scan, found in examined.items() if found.header is None}
    order += sorted(todo & errors.keys())
    by_name = {source.name: source for source in sources}
    crs = {scan: found.crs for scan, found in examined.items() if found.crs is not None}
    return Survey(by_name, keys, headers, neighbours, errors, records, plan, order, crs, tuple(remarks))


def _meets(header: ScanHeader | None, window: Window) -> bool:
    """Whether a scan may have points in the window; what cannot be told may."""
    if header is None or header.bounds is None or not np.isfinite(header.bounds).all():
        return True
    low, high = header.bounds[:, :2]
    return bool((low < window[2:]).all() and (high >= window[:2]).all())
