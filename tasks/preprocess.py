"""Scans to a blocks dataset: one Prefect task per scan, then one that makes the dataset exist."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from prefect import get_run_logger, task

from pointcloud import ledger, splits, storage, store
from pointcloud.blocks import Block, BlockConfig, iterate_blocks, thin
from pointcloud.cloud import Cloud
from pointcloud.errors import PointloomError, ScanError
from pointcloud.features import FeatureStatistics, standardised_columns
from pointcloud.labels import LabelScheme
from pointcloud.rooms import is_room, object_files, read_room
from pointcloud.scan import SUFFIXES, read_cloud
from pointcloud.splits import SplitRule

STAGE = "preprocess"


@dataclass(frozen=True)
class PreprocessJob:
    """What is done to every scan of one dataset."""

    out: str
    block_config: BlockConfig
    label_scheme: LabelScheme
    split_rule: SplitRule

    def key(self, content: str) -> str:
        return ledger.key_of(
            STAGE, store.SCHEMA_VERSION, content, self.block_config.to_dict(), self.label_scheme.to_dict(),
            self.split_rule.to_dict(),
        )  # fmt: skip


def find_scans(patterns: list[str]) -> list[storage.Source]:
    """The LAS and LAZ files and S3DIS room folders that paths, folders and globs mean.

    Raises:
        StorageError: nothing there.
    """
    rooms = [pattern for pattern in patterns if is_room(pattern)]
    scans = [pattern for pattern in patterns if pattern not in rooms]
    found = [storage.Source(room, storage.name_of(room)) for room in rooms]
    return found + (storage.expand(scans, SUFFIXES) if scans else [])


@task(name="preprocess scan", task_run_name="{source.name}", retries=1, retry_delay_seconds=2)
def preprocess_scan(source: storage.Source, job: PreprocessJob) -> ledger.Record:
    """Read, cut and store one scan, unless the ledger says it is done. A bad scan is quarantined, not raised."""
    logger = get_run_logger()
    key = job.key(_content(source))
    done = ledger.find_done(job.out, STAGE, source.name, key)
    if done is not None:
        logger.info("%s: unchanged, %d blocks kept", source.name, done.points_out)
        return done
    began = time.monotonic()
    try:
        record = _preprocess(source, job, key, began)
        logger.info("%s: %s points in %.1f s", source.name, f"{record.points_in:,}", record.seconds)
    except ScanError as error:
        record = ledger.Record(
            STAGE, source.name, key, ledger.QUARANTINED, seconds=time.monotonic() - began, error=str(error)
        )
        logger.warning("quarantined: %s", error)
    ledger.write(job.out, record)
    return record


def _content(source: storage.Source) -> str:
    # A room is a folder: its objects' hashes together are its content.
    if is_room(source.uri):
        return ledger.key_of([(f.name, storage.content_hash(f.uri)) for f in object_files(source.uri)])
    return storage.content_hash(source.uri)


def _read(uri: str) -> Cloud:
    return read_room(uri) if is_room(uri) else read_cloud(uri)


def _preprocess(source: storage.Source, job: PreprocessJob, key: str, began: float) -> ledger.Record:
    cloud = _read(source.uri)
    try:
        voxels = thin(cloud, job.block_config)
        blocks = list(iterate_blocks(source.name, cloud, voxels, job.block_config, job.label_scheme))
    except ScanError as error:
        raise ScanError(f"scan {source.uri!r}: {error}") from error
    assigned = splits.assign(source.name, blocks, job.split_rule)
    path = f"shards/{source.name}.parquet"
    uri = storage.join(job.out, path)
    store.write_shard(uri, blocks, assigned, len(job.label_scheme), cloud.crs)
    codes = cloud.attributes.get("classification", np.empty(0, np.uint8))
    left_out = codes[job.label_scheme.to_indices(codes) < 0]
    return ledger.Record(
        STAGE, source.name, key, ledger.DONE,
        points_in=len(cloud),
        points_out=len(voxels),
        seconds=time.monotonic() - began,
        output=uri,
        details={
            "path": path,
            "num_blocks": dict(Counter(assigned)),
            "class_counts": _class_counts(blocks, assigned, len(job.label_scheme)),
            "moments": _moments([b for b, split in zip(blocks, assigned, strict=True) if split == splits.TRAIN]),
            "attributes": sorted(set(cloud.attributes) - {"classification"}),
            "codes_ignored": {str(code): count for code, count in sorted(Counter(left_out.tolist()).items())},
            "crs": cloud.crs.name if cloud.crs else None,
        },
    )  # fmt: skip


def _class_counts(blocks: list[Block], assigned: list[str], num_classes: int) -> dict[str, list[int]]:
    counts: dict[str, np.ndarray] = {}
    for block, split in zip(blocks, assigned, strict=True):
        if block.label is not None:
            labelled = block.label[block.is_core & (block.label >= 0)]
            counts[split] = counts.get(split, 0) + np.bincount(labelled, minlength=num_classes)
    return {split: count.tolist() for split, count in sorted(counts.items())}


def _moments(blocks: list[Block]) -> dict[str, list[float]]:
    """Number, sum and sum of squares of each standardised column, which add up over scans."""
    moments: dict[str, np.ndarray] = {}
    for block in blocks:
        for name, values in standardised_columns(block).items():
            moments[name] = moments.get(name, 0) + np.array([len(values), values.sum(), (values**2).sum()])
    return {name: sums.tolist() for name, sums in sorted(moments.items())}


@task(name="write manifest")
def write_manifest(records: list[ledger.Record], job: PreprocessJob) -> store.Manifest:
    """Make the dataset exist, from the records of its scans.

    Raises:
        PointloomError: not one scan could be read.
    """
    logger: logging.Logger | logging.LoggerAdapter[Any] = get_run_logger()
    good = [r for r in records if r.state == ledger.DONE]
    if not good:
        raise PointloomError(f"none of {len(records)} scans could be read: {records[0].error}")
    moments = [r.details["moments"] for r in good]
    names = sorted(set.intersection(*[set(m) for m in moments if m] or [set()]))
    sums = {name: np.sum([m[name] for m in moments if m], axis=0) for name in names}
    mean = {name: float(s[1] / s[0]) for name, s in sums.items()}
    # A constant column has no spread to divide by; its standardised value is zero.
    std = {n: float(np.sqrt(max(s[2] / s[0] - mean[n] ** 2, 0.0))) or 1.0 for n, s in sums.items()}
    counts: dict[str, np.ndarray] = {}
    for record in good:
        for split, of_scan in record.details["class_counts"].items():
            counts[split] = counts.get(split, 0) + np.array(of_scan)
    for record in good:
        if record.details["codes_ignored"]:
            logger.info(
                "%s: class codes outside the scheme, points: %s", record.scan, record.details["codes_ignored"]
            )
    manifest = store.Manifest(
        block_config=job.block_config,
        label_scheme=job.label_scheme,
        split_rule=job.split_rule.to_dict(),
        shards=tuple(store.Shard(r.details["path"], r.scan, r.details["num_blocks"]) for r in good),
        statistics=FeatureStatistics(mean, std),
        class_counts={split: c.tolist() for split, c in sorted(counts.items())},
        attributes=tuple(sorted(set.intersection(*[set(r.details["attributes"]) for r in good]))),
        quarantined={r.scan: r.error for r in records if r.state == ledger.QUARANTINED},
    )
    store.write_manifest(job.out, manifest)
    for split in (splits.TRAIN, splits.VAL):
        logger.info(
            "%s: %d blocks, points by class %s", split, manifest.num_blocks(split),
            dict(zip(job.label_scheme.names, manifest.class_counts.get(split, []), strict=False)),
        )  # fmt: skip
    return manifest
