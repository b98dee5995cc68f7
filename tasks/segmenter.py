"""What a Ray actor does: it keeps the network, takes one scan at a time, writes its labelled cloud and its record."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from models.checkpoint import read_checkpoint
from models.predictor import Predictor
from pointcloud import ledger, storage
from pointcloud.errors import PointloomError, ScanError
from pointcloud.labelled import check_codes, output_name, write_labelled
from pointcloud.reader import read_cloud
from pointcloud.scan import open_scan

STAGE = "segment"


@dataclass(frozen=True)
class SegmentJob:
    """One checkpoint, one place for the labelled clouds, and how the work is shared out.

    Attributes:
        checkpoint: its folder or URI.
        identity: `models.checkpoint.fingerprint` of it.
        out: folder or URI of the labelled clouds.
        num_actors, cpus_per_actor: how many, and the CPUs of each.
        overlap: shifted grids whose logits are averaged; None: as in training.
    """

    checkpoint: str
    identity: str
    out: str
    num_actors: int
    cpus_per_actor: int
    overlap: int | None

    def key(self, content: str) -> str:
        """Hash of all that a labelled cloud depends on, for a scan's `storage.fingerprint`."""
        return ledger.key_of(STAGE, content, self.identity, self.overlap)

    def output(self, scan: str) -> str:
        return storage.join(self.out, output_name(scan))


class ScanSegmenter:
    """Labels the scans that Ray Data hands to it, one row each; what goes back is the scan's record."""

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
