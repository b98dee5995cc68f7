"""What a Ray actor does: it keeps the network, takes one scan at a time, writes its labelled cloud and its record."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.checkpoint import read_checkpoint
from models.predictor import Predictor
from pointcloud import ledger, storage
from pointcloud.blocks import BlockConfig
from pointcloud.errors import PointloomError, ScanError
from pointcloud.extra_dimensions import ENTROPY, probability_dimensions
from pointcloud.label_options import LabelOptions
from pointcloud.labelled import check_codes, output_name, write_labelled
from pointcloud.labelling import decode_beside, decode_for_labels, label_points
from pointcloud.measures import summarise
from pointcloud.parts import Part
from pointcloud.scan import open_scan
from tasks.isolation import IsolatedProcesses

STAGE = "segment"


@dataclass(frozen=True)
class SegmentJob:
    """One checkpoint, one place for the labelled clouds, and how the work is shared out.

    Attributes:
        checkpoint: its folder or URI.
        identity: `models.checkpoint.fingerprint` of it.
        out: folder or URI of the labelled clouds.
        num_actors, cpus_per_actor: how many, and the CPUs of each.
        memory_mb, time_limit_s: what decoding a scan may take, see `tasks.isolation`.
        config: how blocks are cut, as the checkpoint and the options say.
        options: how points are voted on, which may change, what is written.
    """

    checkpoint: str
    identity: str
    out: str
    num_actors: int
    cpus_per_actor: int
    memory_mb: int
    time_limit_s: float
    config: BlockConfig
    options: LabelOptions

    def key(self, content: str, neighbours: Sequence[tuple[str, str]]) -> str:
        """Hash of all that a labelled cloud depends on: a scan's `storage.fingerprint`, its neighbours' by name."""
        return ledger.key_of(STAGE, content, list(neighbours), self.identity, self.options.to_dict())

    def output(self, scan: str) -> str:
        return storage.join(self.out, output_name(scan))


class ScanSegmenter:
    """Labels the scans that Ray Data hands to it, one row each; what goes back is the scan's record."""

    def __init__(self, job: SegmentJob) -> None:
        torch.set_num_threads(job.cpus_per_actor)
        self._job = job
        checkpoint = replace(read_checkpoint(job.checkpoint), block_config=job.config)
        self._scheme = job.options.scheme(checkpoint.label_scheme)
        self._predictor = Predictor(checkpoint, job.options.rotations)
        self._decoder = IsolatedProcesses(1, job.memory_mb, job.time_limit_s)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        uri, name, key, beside = (str(batch[column][0]) for column in ("uri", "name", "key", "neighbours"))
        began = time.monotonic()
        try:
            record = self._segment(uri, name, key, json.loads(beside), began)
        except PointloomError as error:
            record = ledger.Record(
                STAGE, name, key, ledger.QUARANTINED, seconds=time.monotonic() - began, error=str(error)
            )
        ledger.write(self._job.out, record)
        return {"record": [asdict(record)]}

    def _segment(
        self, uri: str, name: str, key: str, beside: Mapping[str, str], began: float
    ) -> ledger.Record:
        scheme, options = self._scheme, self._job.options
        try:
            with tempfile.TemporaryDirectory(prefix="pointloom-parts-") as folder:
                part, neighbours = self._decode(name, uri, beside, Path(folder))
                with open_scan(uri) as reader:
                    check_codes(reader.header, scheme)
                found = label_points(
                    part,
                    neighbours,
                    self._job.config,
                    self._predictor.logits,
                    partial(summarise, options=options),
                )
        except ScanError as error:
            raise error if repr(uri) in str(error) else ScanError(f"scan {uri!r}: {error}") from error
        classes, confidence = found["classes"], found["confidence"]
        measures = {ENTROPY: found["entropy"]} if options.entropy else {}
        if options.probabilities:
            measures |= zip(probability_dimensions(scheme), found["probabilities"].T, strict=True)
        output = self._job.output(name)
        codes = write_labelled(uri, output, scheme.to_codes(classes), confidence, options, measures)
        counts = np.bincount(classes, minlength=len(scheme)).tolist()
        return ledger.Record(
            STAGE, name, key, ledger.DONE,
            points_in=part.num_points,
            points_out=len(classes),
            seconds=time.monotonic() - began,
            output=output,
            details={
                "class_counts": dict(zip(scheme.names, counts, strict=True)),
                "code_counts": {str(code): int(codes[code]) for code in np.flatnonzero(codes)},
                "mean_confidence": round(float(confidence.mean()), 4),
            },
        )  # fmt: skip

    def _decode(
        self, name: str, uri: str, beside: Mapping[str, str], folder: Path
    ) -> tuple[Part, list[Part]]:
        """The parts of a scan and its neighbours (name -> URI), decoded where a decoder may crash."""
        config, neighbours = self._job.config, []
        part: Part = self._decoder.call(decode_for_labels, name, uri, folder / "scan.arrow", config)
        for number, (other, at) in enumerate(sorted(beside.items())):
            # A neighbour that cannot be read, or has no point so near, gives no context; its own record says why.
            with suppress(ScanError):
                neighbours.append(
                    self._decoder.call(decode_beside, other, at, folder / f"{number}.arrow", config, part)
                )
        return part, neighbours
