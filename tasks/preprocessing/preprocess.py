"""Scans to a blocks dataset: what there is to do, one Prefect task per scan, then one that makes the dataset exist."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from pointcloud.blocks.decoded import DecodedScan
from pointcloud.blocks.features import FeatureStatistics
from pointcloud.blocks.ground import describe_noise
from pointcloud.crs import metres_per_unit, name_of
from pointcloud.dataset import splits, store
from pointcloud.dataset.filling import values_to_fill
from pointcloud.dataset.recipe import Recipe, cut_scan
from pointcloud.dataset.shard import ShardSums
from pointcloud.errors import PointloomError, ScanError
from pointcloud.storage import files, ledger
from pointcloud.storage.ledger import CUTTING, READING
from tasks.prefect_ui.scan_states import ScanStates
from tasks.prefect_ui.survey_map import TileRuns
from tasks.preprocessing.decoded_scans import DecodedScans
from tasks.preprocessing.plan import STAGE, Survey
from tasks.runtime.isolation import IsolatedProcesses


@task(
    name="preprocess scan", task_run_name="{scan}", retries=1, retry_delay_seconds=2, cache_policy=NO_CACHE,
)  # fmt: skip
def preprocess_scan(
    scan: str, survey: Survey, out: str, recipe: Recipe, decoded_scans: DecodedScans, processes: IsolatedProcesses,
    states: ScanStates,
) -> ledger.Record:  # fmt: skip
    """Read, cut and store one scan; its record, also where it is quarantined.

    Raises:
        StorageError: something cannot be reached; Prefect tries once more.
    """
    logger = get_run_logger()
    began, key = time.monotonic(), survey.keys[scan]
    states.set(scan, READING)
    try:
        if scan in survey.errors:
            raise ScanError(survey.errors[scan])
        decoded, neighbours = decoded_scans.of(scan)
        tiles = _tiles(decoded, recipe)
        states.set(scan, CUTTING, tiles=tiles)
        path = f"shards/{scan}.parquet"
        uri = files.join(out, *path.split("/"))
        sums: ShardSums = processes.call(cut_scan, decoded, neighbours, recipe, uri)
        record = ledger.Record(
            STAGE, scan, key, ledger.DONE,
            points_in=decoded.num_points,
            points_out=sums.num_core,
            seconds=time.monotonic() - began,
            output=uri,
            details={
                "path": path, "tiles": tiles.to_dict(), **sums.to_dict(), **_details(decoded, neighbours, recipe),
                "noise": {"marked": decoded.num_marked, "outliers": sums.num_outliers},
                "notes": [*decoded.notes, *describe_noise(decoded.num_marked, sums.num_outliers)],
            },
        )  # fmt: skip
        logger.info("%s: %s points in %.1f s", scan, f"{record.points_in:,}", record.seconds)
        for note in record.details["notes"]:
            logger.info("%s: %s", scan, note)
    except ScanError as error:
        sentence = str(error) if scan in str(error) else f"scan {survey.sources[scan].uri!r}: {error}"
        record = ledger.Record(
            STAGE, scan, key, ledger.QUARANTINED, seconds=time.monotonic() - began, error=sentence
        )
        logger.warning("quarantined: %s", sentence)
    if scan in survey.headers:
        decoded_scans.release(scan)
    ledger.write(out, record)
    states.set(scan, record.state, record)
    return record


def _tiles(decoded: DecodedScan, recipe: Recipe) -> TileRuns:
    """Where a scan has points; the tiles at its edge it may share with its neighbours."""
    size = recipe.config.tile_size_m / metres_per_unit(decoded.crs)[0]
    return TileRuns.of(decoded.cells[:, :2] // recipe.config.overlap, size)


def _details(decoded: DecodedScan, neighbours: list[DecodedScan], recipe: Recipe) -> dict[str, Any]:
    ignored = recipe.scheme.to_indices(decoded.cells[:, 2]) < 0
    codes: dict[int, int] = {}
    if "classification" in decoded.attributes:
        for code, count in zip(
            decoded.cells[ignored, 2].tolist(), decoded.cell_points[ignored].tolist(), strict=True
        ):
            codes[code] = codes.get(code, 0) + count
    return {
        "attributes": sorted(set(decoded.attributes) - {"classification"}),
        "codes_ignored": {str(code): count for code, count in sorted(codes.items())},
        "crs": name_of(decoded.crs) if decoded.crs is not None else None,
        "extent": decoded.extent.tolist(),
        "neighbours": [other.scan for other in neighbours],
    }


@task(name="write manifest", cache_policy=NO_CACHE)
def write_manifest(
    records: Mapping[str, ledger.Record], out: str, recipe: Recipe, gone: Mapping[str, ledger.Record]
) -> store.Manifest:
    """Make the dataset exist, from the records of its scans; what is left of scans that are gone is removed.

    Raises:
        PointloomError: not one scan could be read.
    """
    logger: logging.Logger | logging.LoggerAdapter[Any] = get_run_logger()
    good = [r for _, r in sorted(records.items()) if r.state == ledger.DONE]
    if not good:
        raise PointloomError(
            f"none of {len(records)} scans could be read: {next(iter(records.values())).error}"
        )
    moments: dict[str, np.ndarray] = {}
    for record in good:
        for name, of_scan in record.details["moments"].items():
            moments[name] = moments.get(name, 0) + np.array(of_scan)
    statistics = FeatureStatistics.from_moments(dict(sorted(moments.items())))
    counts: dict[str, np.ndarray] = {}
    for record in good:
        for split, of_scan in record.details["class_counts"].items():
            counts[split] = counts.get(split, 0) + np.array(of_scan)
        if record.details["codes_ignored"]:
            logger.info(
                "%s: class codes outside the scheme, points: %s", record.scan, record.details["codes_ignored"]
            )
    given = [set(r.details["attributes"]) for r in good]
    filled = values_to_fill(given, statistics)
    for name in filled:
        lacking = [r.scan for r, names_of_scan in zip(good, given, strict=True) if name not in names_of_scan]
        logger.warning(
            "%d of %d scans have no %s (%s first): their blocks give %d instead; name the features that every scan "
            "must give in features to have these quarantined", len(lacking), len(good), name, lacking[0], filled[name],
        )  # fmt: skip
    manifest = store.Manifest(
        block_config=recipe.config,
        label_scheme=recipe.scheme,
        split_rule=recipe.rule.to_dict(),
        shards=tuple(store.Shard(r.details["path"], r.scan, r.details["num_blocks"]) for r in good),
        statistics=statistics,
        class_counts={split: c.tolist() for split, c in sorted(counts.items())},
        attributes=tuple(sorted(set.union(*given))),
        quarantined={scan: r.error for scan, r in sorted(records.items()) if r.state == ledger.QUARANTINED},
        filled=filled,
    )
    store.write_manifest(out, manifest)
    for record in gone.values():
        if record.output:
            files.delete(record.output)
        ledger.remove(out, record)
    for split in splits.SPLITS:
        if manifest.num_blocks(split):
            logger.info(
                "%s: %d blocks, points by class %s", split, manifest.num_blocks(split),
                dict(zip(recipe.scheme.names, manifest.class_counts.get(split, []), strict=False)),
            )  # fmt: skip
    return manifest
