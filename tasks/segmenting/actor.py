"""What a Ray actor does: it keeps the network, takes one scan at a time, writes its labelled cloud and its record."""

from __future__ import annotations

import json
import tempfile
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from pointcloud.blocks.ground import describe_noise
from pointcloud.cloud import CHUNK_POINTS
from pointcloud.crs import name_of
from pointcloud.errors import PointloomError, ScanError, StorageError
from pointcloud.labelling.options import OUTLIER
from pointcloud.quality.doubtful_tiles import TileDoubts
from pointcloud.quality.drift import Sampler
from pointcloud.storage import files, ledger
from pointcloud.storage.ledger import UNREACHED
from tasks.runtime.isolation import scratch_sentence
from tasks.runtime.outage import ATTEMPTS, PAUSE_SECONDS
from tasks.segmenting.job import STAGE, SegmentJob
from tasks.segmenting.labeller import ScanLabeller

CANNOT_BEGIN = "cannot begin"
"""State of a scan whose actor has no network: nothing is wrong with the scan, and the run ends."""

_LIVES = 3  # actors that may end over one scan, before the scan is taken for the cause


class ScanSegmenter:
    """Labels the scans that Ray Data hands to it, one row each; what goes back is the scan's record."""

    def __init__(self, job: SegmentJob) -> None:
        torch.set_num_threads(job.cpus_per_actor)
        self._job = job
        try:
            self._labeller = ScanLabeller(job)
        except PointloomError as error:
            # The first scan brings it to the flow. Ray would begin anew with an actor that raises here, several times,
            # and put the sentence at the end of a traceback.
            self._cannot_begin = str(error)
        else:
            self._cannot_begin = ""
            self._labeller.rehearse()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Label the scan that the one row of a batch names; a row of what came of it."""
        uri, name, key = (str(batch[column][0]) for column in ("uri", "name", "key"))
        beside, crs = (json.loads(str(batch[column][0])) for column in ("neighbours", "crs"))
        began = time.monotonic()
        if self._cannot_begin:
            record = ledger.Record(
                stage=STAGE, scan=name, key=key, state=CANNOT_BEGIN, error=self._cannot_begin
            )
            return {"record": [asdict(record)]}
        for attempt in range(ATTEMPTS):
            try:
                self._job.check_lock()
                if self._begin(name):
                    record = self._segment(uri, name, key, beside, crs, began)
                else:
                    sentence = (
                        f"scan {uri!r}: {_LIVES} processes ended without a word while they labelled it, as they do "
                        "when memory runs out; leave it out, cut it in pieces, or give the machine more memory."
                    )
                    record = self._failed(name, key, ledger.QUARANTINED, began, ScanError(sentence))
                self._job.check_lock()
                ledger.write(self._job.out, record)
                break
            except StorageError as error:
                # The scan may be good: its ledger says nothing, so that the next run takes it up again.
                record = self._failed(name, key, UNREACHED, began, error)
                if attempt + 1 < ATTEMPTS:
                    time.sleep(PAUSE_SECONDS)
            finally:
                with suppress(StorageError):
                    files.delete(self._job.attempts(name))
        return {"record": [asdict(record)]}

    def _begin(self, name: str) -> bool:
        """Note that a scan is begun with; False where so many actors of this run ended over it that it is to blame.

        Ray gives the scan of an actor that ended to the next, as often as it takes.
        """
        uri, before = self._job.attempts(name), 0
        if files.exists(uri):
            with suppress(StorageError, TypeError, KeyError):  # a damaged note is as good as none
                note = files.read_json(uri)
                before = int(note["attempts"]) if note["run"] == self._job.run else 0
        if before >= _LIVES:
            return False
        files.write_json(uri, {"run": self._job.run, "attempts": before + 1})
        return True

    def _segment(
        self, uri: str, name: str, key: str, beside: Mapping[str, str], crs: Mapping[str, str], began: float
    ) -> ledger.Record:
        """The record of a scan, labelled or quarantined. Raises StorageError."""
        try:
            with tempfile.TemporaryDirectory(prefix="pointloom-decoded-") as folder:
                return self._label(uri, name, key, beside, crs, began, Path(folder))
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(scratch_sentence(error)) from error
        except ScanError as error:
            sentence = str(error).replace(f"scan {name!r}", f"scan {uri!r}", 1)
            named = ScanError(sentence if repr(uri) in sentence else f"scan {uri!r}: {error}")
            return self._failed(name, key, ledger.QUARANTINED, began, named)
        except PointloomError as error:
            return self._failed(name, key, ledger.QUARANTINED, began, error)
        except Exception as error:  # noqa: BLE001
            # A defect of ours, or too little memory: the scan is named, the batch goes on.
            reason = " ".join(str(error).split()).rstrip(".")
            sentence = f"scan {uri!r}: labelling it failed unexpectedly ({type(error).__name__}: {reason})."
            record = self._failed(name, key, ledger.QUARANTINED, began, ScanError(sentence))
            return replace(record, details={"traceback": traceback.format_exc()})

    def _failed(self, name: str, key: str, state: str, began: float, error: PointloomError) -> ledger.Record:
        return ledger.Record(
            stage=STAGE, scan=name, key=key, state=state, seconds=time.monotonic() - began, error=str(error)
        )

    def _label(
        self,
        uri: str,
        name: str,
        key: str,
        beside: Mapping[str, str],
        crs: Mapping[str, str],
        began: float,
        folder: Path,
    ) -> ledger.Record:
        labeller, output = self._labeller, self._job.output(name)
        scheme, predictor = labeller.scheme, labeller.predictor
        begun, in_network = time.time(), predictor.network_seconds
        decoded, neighbours = labeller.decode(name, uri, beside, folder, crs)
        decoded_at = time.monotonic()
        doubts = TileDoubts(name, self._job.config, decoded.crs, decoded.extent, len(scheme))
        sampler = Sampler(self._job.config.tile_size_m)
        found = labeller.label(decoded, neighbours, partial(labeller.logits, sampler), folder, doubts.add)
        class_counts, num_outliers = _count(found, len(scheme))
        labelled, in_network = time.monotonic(), predictor.network_seconds - in_network
        looks = labeller.looks(sampler, decoded)
        if looks["drift"] and self._job.quarantine_drift:
            why = f"scan {uri!r} is unlike what the network was trained on: {' '.join(looks['drift'])}"
            return replace(
                self._failed(name, key, ledger.QUARANTINED, began, ScanError(why)),
                points_in=decoded.num_points,
                details=looks,
            )
        self._job.check_lock()
        codes, proof = labeller.write(uri, output, folder)
        doubts.write(self._job.tiles(name))
        written = time.monotonic()
        stages = {
            "decode": decoded_at - began,
            "cut and merge": labelled - decoded_at - in_network,
            "network": in_network,
            "write and prove": written - labelled,
        }
        return ledger.Record(
            stage=STAGE,
            scan=name,
            key=key,
            state=ledger.DONE,
            points_in=decoded.num_points,
            points_out=decoded.num_points,
            seconds=written - began,
            path=self._job.output_path(name),
            details={
                "class_counts": dict(zip(scheme.names, class_counts, strict=True)),
                "code_counts": {str(code): int(codes[code]) for code in np.flatnonzero(codes)},
                "mean_confidence": round(doubts.confidence, 4),
                "area_km2": doubts.area_km2,
                "begun": begun,
                # Which machine was it, when one scan in a thousand looks wrong?
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
