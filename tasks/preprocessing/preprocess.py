"""Scans to a blocks dataset: one Prefect task per scan, then one that makes the dataset exist."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from pointcloud.blocks.decoded import DecodedScan
from pointcloud.crs import metres_per_unit
from pointcloud.dataset import splits, store
from pointcloud.dataset.manifest import details_of, manifest_of
from pointcloud.dataset.preprocessing import PreprocessConfig, cut_scan
from pointcloud.dataset.shard import ShardSums
from pointcloud.errors import PointloomError, ScanError, StorageError
from pointcloud.storage import files, ledger
from pointcloud.storage.ledger import CUTTING, READING, UNREACHED
from tasks.prefect_ui.scan_states import ScanStates
from tasks.prefect_ui.survey_map import TileRuns
from tasks.preprocessing.decoded_scans import DecodedScans
from tasks.preprocessing.plan import STAGE, ScanToCut
from tasks.runtime.isolation import IsolatedProcesses
from tasks.runtime.outage import UNREACHED_IN_A_ROW, Outage, try_again
from tasks.runtime.quarantine import check_reached


class CuttingRun:
    """What the tasks of one run share, in one process.

    No dataclass: Prefect walks through the fields of those for every task, and these grow with the collection.
    """

    def __init__(
        self,
        out: str,
        config: PreprocessConfig,
        decoded_scans: DecodedScans,
        processes: IsolatedProcesses,
        states: ScanStates,
    ) -> None:
        self.out, self.config, self.decoded_scans = out, config, decoded_scans
        self.processes, self.states, self.outage = processes, states, Outage()


@task(name="preprocess scan", task_run_name="{scan.name}", cache_policy=NO_CACHE)
def preprocess_scan(scan: ScanToCut, run: CuttingRun) -> ledger.Record:
    """Read, cut and store one scan; its record, also where it is quarantined, or storage is away.

    What storage does not give or take is tried once more; then the scan is unreached, and has no record in the ledger.
    After several of those in a row the rest is left.
    """
    logger = get_run_logger()
    if run.outage.ends_the_run:
        sentence = (
            f"scan {scan.uri!r} was left, because {UNREACHED_IN_A_ROW} scans in a row before it could not be reached "
            "or written."
        )
        record = ledger.Record(stage=STAGE, scan=scan.name, key=scan.key, state=UNREACHED, error=sentence)
        run.states.set(scan.name, record.state, record)
        return record
    began = time.monotonic()
    run.states.set(scan.name, READING)
    try:
        record = try_again(lambda: _cut_and_note(scan, run, logger, began))
    except StorageError as error:
        record = _failed(scan, UNREACHED, began, str(error))
    finally:
        if not scan.error:
            run.decoded_scans.release(scan.name)
    run.outage.note(record.state == UNREACHED)
    if record.state != ledger.DONE:
        logger.warning("%s: %s", record.state, record.error)
    if run.outage.ends_the_run:
        logger.error(
            "%s scans in a row ended like this: the rest is left, what is done is kept", UNREACHED_IN_A_ROW
        )
    run.states.set(scan.name, record.state, record)
    return record


def _cut_and_note(
    scan: ScanToCut, run: CuttingRun, logger: logging.Logger | logging.LoggerAdapter[Any], began: float
) -> ledger.Record:
    """The record of a scan, which is in the ledger then. Raises StorageError."""
    try:
        if scan.error:
            raise ScanError(scan.error)
        record = _cut(scan, run, logger, began)
    except ScanError as error:
        named = scan.error or (str(error) if repr(scan.uri) in str(error) else f"scan {scan.uri!r}: {error}")
        record = _failed(scan, ledger.QUARANTINED, began, named)
    ledger.write(run.out, record)
    return record


def _cut(
    scan: ScanToCut, run: CuttingRun, logger: logging.Logger | logging.LoggerAdapter[Any], began: float
) -> ledger.Record:
    """The record of a scan that is cut and stored. Raises ScanError, StorageError."""
    decoded, neighbours = run.decoded_scans.of(scan.name)
    tiles = _tiles(decoded, run.config)
    run.states.set(scan.name, CUTTING, tiles=tiles)
    path = f"shards/{scan.name}.parquet"
    uri = files.join(run.out, *path.split("/"))
    sums: ShardSums = run.processes.call(cut_scan, decoded, neighbours, run.config, uri)
    seconds = time.monotonic() - began
    details = details_of(decoded, neighbours, sums, run.config)
    logger.info("%s: %s points in %.1f s", scan.name, f"{decoded.num_points:,}", seconds)
    for note in details["notes"]:
        logger.info("%s: %s", scan.name, note)
    return ledger.Record(
        stage=STAGE,
        scan=scan.name,
        key=scan.key,
        state=ledger.DONE,
        points_in=decoded.num_points,
        points_out=sums.num_core,
        seconds=seconds,
        path=path,
        details={"tiles": tiles.to_dict(), **details},
    )


def _failed(scan: ScanToCut, state: str, began: float, error: str) -> ledger.Record:
    return ledger.Record(
        stage=STAGE, scan=scan.name, key=scan.key, state=state, seconds=time.monotonic() - began, error=error
    )


def _tiles(decoded: DecodedScan, config: PreprocessConfig) -> TileRuns:
    """Where a scan has points; the tiles at its edge it may share with its neighbours."""
    size = config.block_config.tile_size_m / metres_per_unit(decoded.crs)[0]
    return TileRuns.of(decoded.cells[:, :2] // config.block_config.overlap, size)


@task(name="write manifest", cache_policy=NO_CACHE)
def write_manifest(
    records: Mapping[str, ledger.Record],
    out: str,
    config: PreprocessConfig,
    gone: Mapping[str, ledger.Record],
) -> store.Manifest:
    """Make the dataset exist, from the records of its scans; what is left of scans that are gone is removed.

    Raises:
        PointloomError: not one scan could be read; nothing is written then.
        StorageError: nor reached, or the manifest cannot be written.
    """
    logger = get_run_logger()
    done = [record for _, record in sorted(records.items()) if record.state == ledger.DONE]
    if not done:
        check_reached(list(records.values()))
        raise PointloomError(
            f"none of {len(records)} scans could be read: {next(iter(records.values())).error}"
        )
    manifest = manifest_of(records, config)
    for record in done:
        if codes := record.details["codes_ignored"]:
            logger.info("%s: class codes outside the scheme, points: %s", record.scan, codes)
    for name, value in manifest.filled.items():
        lacking = [record.scan for record in done if name not in record.details["attributes"]]
        logger.warning(
            "%d of %d scans have no %s (%s first): their blocks give %d instead; name the features that every scan "
            "must give in features to have these quarantined", len(lacking), len(done), name, lacking[0], value,
        )  # fmt: skip
    store.write_manifest(out, manifest)
    for record in gone.values():
        ledger.discard(out, record)
    for split in splits.SPLITS:
        if manifest.num_blocks(split):
            logger.info(
                "%s: %d blocks, points by class %s", split, manifest.num_blocks(split),
                dict(zip(config.scheme.names, manifest.class_counts.get(split, []), strict=False)),
            )  # fmt: skip
    return manifest
