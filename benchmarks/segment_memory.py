"""Peak memory of the segment flow's actor for scans of any size: `python -m benchmarks.segment --memory 10 100`.

A scan is labelled by the actor's own class in a new process, with a small network of weights as drawn and voxels of
1 m, because memory and not the network is asked for. Counted are the actor and the isolated processes that decode
and write for it, together, several times a second; pages of mapped files are not, because the system takes them back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import laspy
import psutil
import torch

from benchmarks.preprocess import TILE_M, write_scan
from benchmarks.scan_training import train_on_scans
from benchmarks.segmenting import FEATURES, SCHEME, local_segmenter
from models.network.configurations import DeepGCNConfig
from models.recipes import TrainConfig
from models.weights.checkpoint import save_checkpoint
from pointcloud.blocks.features import num_channels
from pointcloud.dataset.preprocessing import PreprocessConfig
from pointcloud.dataset.splits import SplitRule
from pointcloud.grid.block_config import BlockConfig
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig
from pointcloud.storage.inputs import Source

_PAUSE_SECONDS = 0.1


class PeakMemory:
    """The largest sum of private memory over this process and all below it, while the `with` body runs, in bytes."""

    def __enter__(self) -> PeakMemory:
        self.peak, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        here = psutil.Process()
        while not self._ended.wait(_PAUSE_SECONDS):
            self.peak = max(self.peak, sum(map(_private, [here, *here.children(recursive=True)])))


def _private(process: psutil.Process) -> int:
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0
    return int(memory.rss - memory.shared)


def compare(millions: Sequence[float], folder: Path, points_per_m2: float) -> dict[str, float]:
    """Millions of points -> peak in MB, each in a process of its own; prints a line each."""
    survey = SurveyConfig(tiles=(1, 1), tile_size_m=TILE_M, points_per_m2=points_per_m2)
    tile_path = write_survey(survey, folder, ".las")[0]
    checkpoint, tile, found = small_checkpoint(tile_path, folder / "small"), laspy.read(tile_path), {}
    for size in millions:
        scan = folder / f"{size:g}_million.laz"
        num_points = write_scan(tile, size, scan)
        one = in_new_process(scan, checkpoint, folder / f"labelled-{size:g}")
        print(
            f"{num_points:,} points: {one['peak_mb']:.0f} MB, {one['seconds']:.0f} s ({one['stages']})",
            flush=True,
        )
        found[f"{size:g}"] = round(one["peak_mb"])
        scan.unlink()
    return found


def small_checkpoint(scan: Path, out: Path) -> str:
    """Of a network that knows nothing, with the scan's statistics and voxels of 1 m."""
    network = DeepGCNConfig(
        in_channels=num_channels(FEATURES), num_classes=len(SCHEME), num_layers=2, channels=8, k=8,
        fusion_channels=16, prediction_channels=(16, 8),
    )  # fmt: skip
    cutting = PreprocessConfig(
        block_config=replace(BlockConfig(), voxel_size_m=1.0),
        scheme=SCHEME,
        rule=SplitRule(),
        required=FEATURES,
    )
    plan = TrainConfig(epochs=1, batch_size=2)
    checkpoint = train_on_scans([Source(str(scan), scan.name)], cutting, network, plan)
    save_checkpoint(str(out), checkpoint)
    return str(out)


def in_new_process(scan: Path, checkpoint: str, out: Path) -> dict[str, Any]:
    """`label` in a new Python, its memory nobody else's."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.segment_memory", str(scan), checkpoint, str(out)],
        env={**os.environ, "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, text=True, check=True, timeout=3600,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def label(scan: Path, checkpoint: str, out: Path) -> dict[str, Any]:
    """What the flow's actor does with a scan: seconds, stages and peak memory."""
    torch.set_num_threads(1)
    segmenter, (to_do,) = local_segmenter([scan], checkpoint, out)
    began = time.perf_counter()
    with PeakMemory() as memory:
        record = segmenter.work(to_do)
    if record.error:
        raise SystemExit(record.error)
    stages = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in record.details["stages"].items())
    return {"seconds": time.perf_counter() - began, "peak_mb": memory.peak / 2**20, "stages": stages}


if __name__ == "__main__":
    print(json.dumps(label(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))))
