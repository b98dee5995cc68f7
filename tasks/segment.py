"""Scans to labelled clouds: one Prefect task holds the driver, Ray Data hands scans to actors that keep the network.

The actors read and write the files themselves; what comes back is one small record per scan.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import ray.data
import torch
from prefect import get_run_logger, task

from models.checkpoint import fingerprint, read_checkpoint
from models.predictor import Predictor
from pointcloud import ledger, storage
from pointcloud.errors import PointloomError, ScanError
from pointcloud.labelled import check_codes, output_name, write_labelled
from pointcloud.reader import read_cloud
from pointcloud.scan import SUFFIXES, open_scan
from tasks.cluster import ray_session, usable_cpus
from tasks.watching import Progress

STAGE = "segment"


@dataclass(frozen=True)
class SegmentJob:
    """One collection of scans, one checkpoint, one place for the labelled clouds."""

    checkpoint: str
    out: str
    num_actors: int
    cpus_per_actor: int
    overlap: int | None

    def key(self, content: str) -> str:
        return ledger.key_of(STAGE, content, fingerprint(self.checkpoint), self.overlap)

    def output(self, scan: str) -> str:
        return storage.join(self.out, output_name(scan))


def find_scans(patterns: list[str], out: str) -> list[storage.Source]:
    """The LAS and LAZ files that paths, folders and globs mean.

    Raises:
        StorageError: nothing there, or two scans with one name.
        PointloomError: the labelled clouds would overwrite their scans.
    """
    sources = storage.expand(patterns, SUFFIXES)
    for source in sources:
        if storage.same(source.uri, storage.join(out, output_name(source.name))):
            raise PointloomError(
                f"the labelled cloud would overwrite its scan {source.uri!r}; give another out folder."
            )
    return sources


def plan_segmenting(
    checkpoint: str, out: str, num_actors: int, cpus_per_actor: int, overlap: int | None
) -> SegmentJob:
    """A job whose checkpoint is there and readable; 0 CPUs per actor shares out what this machine has.

    Raises:
        StorageError, SchemaError: no checkpoint there, or of another schema.
        PointloomError: an overlap that does not fit the checkpoint's tiles.
    """
    record = read_checkpoint(checkpoint, weights=False)
    if overlap is not None:
        replace(record.block_config, overlap=overlap)
    return SegmentJob(
        checkpoint, out, num_actors, cpus_per_actor or max(1, usable_cpus() // num_actors), overlap
    )


@task(name="segment scans")
def segment_scans(sources: list[storage.Source], job: SegmentJob) -> list[ledger.Record]:
    """Label every scan that the ledger does not call done; one record for each, bad ones quarantined."""
    logger = get_run_logger()
    keys = {source.name: job.key(storage.content_hash(source.uri)) for source in sources}
    known = {s.name: ledger.find_done(job.out, STAGE, s.name, keys[s.name]) for s in sources}
    records = [record for record in known.values() if record is not None]
    todo = [source for source in sources if known[source.name] is None]
    if records:
        logger.info(
            "%d of %d scans are labelled already by this checkpoint, kept", len(records), len(sources)
        )
    if not todo:
        return records
    # Large scans first, so that no actor is left with one at the end.
    todo.sort(key=lambda source: -storage.size(source.uri))
    progress = Progress(f"segmenting-{job.out}", f"Scans labelled into {job.out}", len(todo))
    num_actors = min(job.num_actors, len(todo))
    with ray_session(max(usable_cpus(), num_actors * job.cpus_per_actor)):
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = ray.data.from_items(
            [{"uri": s.uri, "name": s.name, "key": keys[s.name]} for s in todo], override_num_blocks=len(todo)
        ).map_batches(
            ScanSegmenter,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=num_actors),
            num_cpus=job.cpus_per_actor,
        )
        for row in rows.iter_rows():
            record = ledger.Record(**row["record"])
            records.append(record)
            progress.step()
            if record.state == ledger.QUARANTINED:
                logger.warning("quarantined: %s", record.error)
            else:
                rate = record.points_in / record.seconds
                logger.info("%s: %s points in %.1f s, %s points/s", record.scan, f"{record.points_in:,}",
                            record.seconds, f"{rate:,.0f}")  # fmt: skip
    return records


class ScanSegmenter:
    """A Ray actor: holds the network, takes one scan at a time, writes its labelled cloud and ledger record."""

    def __init__(self, job: SegmentJob) -> None:
        torch.set_num_threads(job.cpus_per_actor)
        self._job = job
        checkpoint = read_checkpoint(job.checkpoint)
        if job.overlap is not None:
            checkpoint = replace(
                checkpoint, block_config=replace(checkpoint.block_config, overlap=job.overlap)
            )
        self._predictor = Predictor(checkpoint)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        uri, name, key = (str(batch[column][0]) for column in ("uri", "name", "key"))
        began = time.monotonic()
        try:
            record = self._segment(uri, name, key, began)
        except PointloomError as error:
            record = ledger.Record(
                STAGE, name, key, ledger.QUARANTINED, seconds=time.monotonic() - began, error=str(error)
            )
        ledger.write(self._job.out, record)
        return {"record": [asdict(record)]}

    def _segment(self, uri: str, name: str, key: str, began: float) -> ledger.Record:
        scheme = self._predictor.checkpoint.label_scheme
        with open_scan(uri) as reader:
            check_codes(reader.header, scheme)
        cloud = read_cloud(uri)
        try:
            classes, confidence = self._predictor.label(name, cloud)
        except ScanError as error:
            raise ScanError(f"scan {uri!r}: {error}") from error
        output = self._job.output(name)
        write_labelled(uri, output, scheme.to_codes(classes), confidence)
        counts = np.bincount(classes, minlength=len(scheme)).tolist()
        return ledger.Record(
            STAGE, name, key, ledger.DONE,
            points_in=len(cloud),
            points_out=len(classes),
            seconds=time.monotonic() - began,
            output=output,
            details={
                "class_counts": dict(zip(scheme.names, counts, strict=True)),
                "mean_confidence": round(float(confidence.mean()), 4),
            },
        )  # fmt: skip
