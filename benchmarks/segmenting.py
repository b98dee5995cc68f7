"""Labelling as the segment flow does it, in the process of a benchmark."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import laspy
import numpy as np

from models.predictor import Predictor
from pointcloud.blocks.decoded import decode_scan
from pointcloud.blocks.neighbours import find_neighbours
from pointcloud.formats.reader import read_header
from pointcloud.labelling.label_points import Summarise, label_points
from pointcloud.labelling.measures import class_and_confidence
from pointcloud.labelling.options import LabelOptions
from pointcloud.labels import PRESETS
from pointcloud.storage.inputs import Source

FEATURES = ("xyz", "height", "intensity", "returns")
SCHEME = PRESETS["asprs-basic"]


def label_scans(predictor: Predictor, scans: Sequence[Source]) -> dict[str, np.ndarray]:
    """Class indices (P,) of every point of each scan, by its name; the scans are each other's neighbours.

    Raises:
        ScanError, StorageError: as `measure_scans`.
    """
    return {name: values["classes"] for name, values in measure_scans(predictor, scans, _classes).items()}


def measure_scans(
    predictor: Predictor, scans: Sequence[Source], summarise: Summarise
) -> dict[str, dict[str, np.ndarray]]:
    """What is made of the logits of every point of each scan, by its name and then by what it is called.

    Raises:
        ScanError: a scan that cannot be read, or lacks an attribute that the network needs.
        StorageError: a scan that cannot be reached.
    """
    config = predictor.checkpoint.block_config
    neighbours = find_neighbours({scan.name: read_header(scan.uri) for scan in scans}, config)
    with tempfile.TemporaryDirectory(prefix="pointloom-decoded-") as folder:
        decoded = {
            scan.name: decode_scan(scan.name, scan.uri, Path(folder, str(number)), config, every_point=True)
            for number, scan in enumerate(scans)
        }
        return {
            name: label_points(
                scan, [decoded[other] for other in neighbours[name]], config, predictor.logits, summarise
            )
            for name, scan in decoded.items()
        }


def _classes(logits: np.ndarray) -> dict[str, np.ndarray]:
    return {"classes": class_and_confidence(logits)[0]}


def local_segmenter(scans: Sequence[Path], checkpoint: str, out: Path, across_scans: bool = True) -> Any:
    """The actor of the flow, here, and what it is told of each scan."""
    # Ray, which labelling without the flow does not need.
    from tasks.collection.plan import plan_collection
    from tasks.runtime.isolation import isolated
    from tasks.segmenting.actor import ScanSegmenter
    from tasks.segmenting.job import STAGE
    from tasks.segmenting.segment import plan_segmenting

    job = plan_segmenting(
        checkpoint=checkpoint, out=str(out), options=LabelOptions(), num_actors=1, cpus_per_actor=1, memory_mb=3000,
        time_limit_s=3600,
    )  # fmt: skip
    job = replace(job, config=replace(job.config, across_scans=across_scans))
    with isolated(1, job.memory_mb, job.time_limit_s) as processes:
        sources = [Source(str(scan), scan.name) for scan in scans]
        collection = plan_collection(STAGE, job.out, sources, job.config, job.key, processes, 1)
    return ScanSegmenter(job), [collection.to_do(scan) for scan in collection.keys]


def codes_of(
    scans: Sequence[Path], checkpoint: str, out: Path, across_scans: bool = True
) -> list[np.ndarray]:
    """The class codes (P,) that the flow's actor writes for each scan."""
    segmenter, scans_to_do = local_segmenter(scans, checkpoint, out, across_scans)
    for scan in scans_to_do:
        segmenter.work(scan)
    return [np.asarray(laspy.read(out / scan.name).classification) for scan in scans]
