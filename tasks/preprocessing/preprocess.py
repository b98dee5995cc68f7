"""Scans to a blocks dataset: one Prefect task cuts all scans that are to do, then another writes the manifest."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect import get_run_logger

from pointcloud.blocks.decoded import DecodedScan
from pointcloud.crs import metres_per_unit
from pointcloud.dataset import splits, store
from pointcloud.dataset.manifest import details_of, manifest_of
from pointcloud.dataset.preprocessing import PreprocessConfig, cut_scan
from pointcloud.dataset.shard import ShardSums
from pointcloud.errors import PointloomError
from pointcloud.storage import files, ledger
from pointcloud.storage.ledger import CUTTING, READING
from pointcloud.storage.lock import Lock
from tasks.collection.engine import outcome, threads, work_through
from tasks.collection.plan import Collection, Key, ScanToDo
from tasks.collection.quarantine import check_reached
from tasks.prefect_ui.scan_states import ScanStates
from tasks.prefect_ui.survey_map import TileRuns, boxes_of
from tasks.preprocessing.decoded_scans import DecodedScans
from tasks.runtime.isolation import IsolatedProcesses
from tasks.runtime.repeated_notes import RepeatedNotes
from tasks.runtime.stage import stage_task

STAGE = "preprocess"


def key_for(config: PreprocessConfig) -> Key:
    """A function that gives the hash of all that a scan's blocks depend on."""
    settings = config.to_dict()

    def key(content: str, neighbours: Sequence[tuple[str, str]]) -> str:
        return ledger.key_of(STAGE, store.SCHEMA_VERSION, settings, content, list(neighbours))

    return key


@stage_task("preprocess scans")
def preprocess_scans(
    collection: Collection,
    out: str,
    config: PreprocessConfig,
    processes: IsolatedProcesses,
    num_threads: int,
    folder: Path,
    lock: Lock,
) -> dict[str, ledger.Record]:
    """Read, cut and store every scan that the plan names; scan -> record of all scans of the collection.

    Args:
        processes: where scans are decoded and cut.
        num_threads: scans worked on at the same time.
        folder: local, empty, for decoded scans.
        lock: on `out`.
    """
    logger, notes = get_run_logger(), RepeatedNotes()
    needed = {
        scan: [scan, *collection.neighbours.get(scan, [])]
        for scan in collection.order
        if scan in collection.headers
    }
    decoded_scans = DecodedScans(collection.sources, needed, config, folder, processes, collection.crs)
    states = ScanStates(
        out,
        f"Scans cut into {out}",
        collection.states(),
        boxes_of(collection.headers),
        len(collection.order),
        _tiles_before(collection),
    )

    def keep(record: ledger.Record) -> None:
        lock.check()
        ledger.write(out, record)

    def work(scan: ScanToDo) -> ledger.Record:
        states.set(scan.name, READING)
        try:
            return outcome(
                STAGE, scan, lambda: _cut(scan, out, config, decoded_scans, processes, states), keep
            )
        finally:
            if scan.name in needed:
                decoded_scans.release(scan.name)

    def tell(record: ledger.Record) -> None:
        logger.info("%s: %s points in %.1f s", record.scan, f"{record.points_in:,}", record.seconds)
        for note in record.details["notes"]:
            notes.say(logger, record.scan, note)

    scans = [collection.to_do(scan) for scan in collection.order]
    done = work_through(STAGE, scans, threads(work, num_threads), states, logger, tell)
    notes.sum_up(logger)
    return collection.records_before() | done


def _tiles_before(collection: Collection) -> dict[str, TileRuns]:
    """Scan -> its tiles, of those that are in the dataset already."""
    return {
        scan: TileRuns.from_dict(record.details["tiles"])
        for scan, record in collection.records.items()
        if scan in collection.headers and "tiles" in record.details
    }


def _cut(
    scan: ScanToDo,
    out: str,
    config: PreprocessConfig,
    decoded_scans: DecodedScans,
    processes: IsolatedProcesses,
    states: ScanStates,
) -> ledger.Record:
    """The record of a scan that is cut and stored. Raises ScanError, StorageError."""
    began = time.monotonic()
    decoded, neighbours = decoded_scans.of(scan.name)
    tiles = _tiles(decoded, config)
    states.set(scan.name, CUTTING, tiles=tiles)
    path = f"shards/{scan.name}.parquet"
    uri = files.join(out, *path.split("/"))
    sums: ShardSums = processes.call(cut_scan, decoded, neighbours, config, uri)
    return ledger.Record(
        stage=STAGE,
        scan=scan.name,
        key=scan.key,
        state=ledger.DONE,
        points_in=decoded.num_points,
        points_out=sums.num_core,
        seconds=time.monotonic() - began,
        path=path,
        details={"tiles": tiles.to_dict(), **details_of(decoded, neighbours, sums, config)},
    )


def _tiles(decoded: DecodedScan, config: PreprocessConfig) -> TileRuns:
    """The tiles in which a scan has points; those at its edge may be shared with its neighbours."""
    size = config.block_config.tile_size_m / metres_per_unit(decoded.crs)[0]
    return TileRuns.of(decoded.cells[:, :2] // config.block_config.overlap, size)


@stage_task("write manifest")
def write_manifest(
    records: Mapping[str, ledger.Record],
    out: str,
    config: PreprocessConfig,
    gone: Mapping[str, ledger.Record],
) -> store.Manifest:
    """Write the manifest from the records of the scans, and remove the shards of scans that are gone.

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
