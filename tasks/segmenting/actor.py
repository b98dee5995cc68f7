"""What a Ray actor does: it keeps the network, takes scans, writes the labelled cloud and the record of each."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import ray

from pointcloud.blocks.ground import describe_noise
from pointcloud.cloud import CHUNK_POINTS
from pointcloud.crs import name_of
from pointcloud.errors import PointloomError
from pointcloud.labelling.options import OUTLIER
from pointcloud.quality.doubtful_tiles import TileDoubts
from pointcloud.quality.drift import Sampler
from pointcloud.storage import ledger
from pointcloud.storage.lock import Lock
from tasks.collection.engine import CANNOT_BEGIN, failed, outcome
from tasks.collection.plan import ScanToDo
from tasks.segmenting.job import STAGE, SegmentJob

SCANS_AT_ONCE = 2
"""Of an actor: while one is in the network, the other is read, cut, written or proven."""


class ScanSegmenter:
    """Labels the scans that it is handed, in threads, and gives the record of each."""

    def __init__(self, job: SegmentJob) -> None:
        # They import torch, which the flow does not need: it only hands out the work.
        import torch

        from tasks.segmenting.labeller import ScanLabeller

        torch.set_num_threads(job.cpus_per_actor)
        self._job = job
        try:
            self._labeller = ScanLabeller(job, SCANS_AT_ONCE)
        except PointloomError as error:
            # Reported with the first scan: raised here, Ray would put the sentence at the end of a traceback.
            self._cannot_begin = str(error)
        else:
            self._cannot_begin = ""
            self._labeller.rehearse()

    def ready(self, lock: Lock | None) -> None:
        """Return when the actor has begun.

        Args:
            lock: on the folder of the labelled clouds, which the flow holds by now.
        """
        self._job = replace(self._job, lock=lock)

    def work(self, scan: ScanToDo) -> ledger.Record:
        """Label a scan and note it in the ledger; what became of it."""
        if self._cannot_begin:
            return failed(STAGE, scan, CANNOT_BEGIN, self._cannot_begin, time.monotonic())
        return outcome(STAGE, scan, lambda: self._work_in_scratch(scan), self._job.keep)

    def _work_in_scratch(self, scan: ScanToDo) -> ledger.Record:
        self._job.check_lock()
        with tempfile.TemporaryDirectory(prefix="pointloom-decoded-") as folder:
            return self._label(scan, Path(folder))

    def _label(self, scan: ScanToDo, folder: Path) -> ledger.Record:
        """Raises ScanError, StorageError."""
        from models.predictor import Stopwatch

        uri, name, began = scan.uri, scan.name, time.monotonic()
        labeller, output = self._labeller, self._job.output(name)
        scheme, watch, begun = labeller.scheme, Stopwatch(), time.time()
        decoded, neighbours = labeller.decode(scan, folder)
        decoded_at = time.monotonic()
        doubts = TileDoubts(name, self._job.config, decoded.crs, decoded.extent, len(scheme), labeller.limit)
        sampler = Sampler(self._job.config.tile_size_m)
        predict = partial(labeller.logits, sampler, doubts=doubts, watch=watch)
        found = labeller.label(decoded, neighbours, predict, folder, doubts.add)
        class_counts, num_outliers = _count(found, len(scheme))
        labelled = time.monotonic()
        looks = labeller.looks(sampler, decoded, doubts)
        if looks["drift"] and self._job.quarantine_drift:
            why = f"scan {uri!r} is unlike what the network was trained on: {' '.join(looks['drift'])}"
            return replace(
                failed(STAGE, scan, ledger.QUARANTINED, why, began),
                points_in=decoded.num_points,
                details=looks,
            )
        self._job.check_lock()
        codes, proof = labeller.write(uri, output, folder)
        doubts.write(self._job.tiles(name))
        written = time.monotonic()
        stages = {
            "decode": decoded_at - began,
            "cut and merge": labelled - decoded_at - watch.network - watch.waiting,
            "network": watch.network,
            "write and prove": written - labelled,
        }
        return ledger.Record(
            stage=STAGE,
            scan=name,
            key=scan.key,
            state=ledger.DONE,
            points_in=decoded.num_points,
            points_out=decoded.num_points,
            seconds=written - began - watch.waiting,
            path=self._job.output_path(name),
            details={
                "class_counts": dict(zip(scheme.names, class_counts, strict=True)),
                "code_counts": {str(code): int(codes[code]) for code in np.flatnonzero(codes)},
                "mean_confidence": round(doubts.confidence, 4),
                "area_km2": doubts.area_km2,
                "begun": begun,
                # Names the machine, for the case that one scan of many looks wrong.
                "node": ray.get_runtime_context().get_node_id() if ray.is_initialized() else "",
                "settings": self._job.settings,
                **looks,
                "crs": name_of(decoded.crs) if decoded.crs is not None else None,
                "noise": {"marked": decoded.num_marked, "outliers": num_outliers},
                "notes": [
                    *decoded.notes,
                    *labeller.assumed(decoded),
                    *describe_noise(decoded.num_marked, num_outliers),
                ],
                "proof": proof.to_dict(),
                "stages": {stage: round(seconds, 3) for stage, seconds in stages.items()},
            },
        )  # fmt: skip


def _count(found: Mapping[str, np.ndarray], num_classes: int) -> tuple[list[int], int]:
    """Points of each class, and outliers, of what `label_points` returned in files that may be larger than memory."""
    counts, num_outliers, noise = np.zeros(num_classes, np.int64), 0, found.get("noise")
    for at in range(0, len(found["classes"]), CHUNK_POINTS):
        classes = found["classes"][at : at + CHUNK_POINTS]
        if noise is not None:
            of_chunk = noise[at : at + CHUNK_POINTS]
            num_outliers += int(np.count_nonzero(of_chunk == OUTLIER))
            classes = classes[of_chunk == 0]
        counts += np.bincount(classes, minlength=num_classes)
    return counts.tolist(), num_outliers
