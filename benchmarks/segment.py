"""The segment flow against the predictor alone, two actors against one, seams, stages, and a random forest.

    python -m benchmarks.segment [--scan shared/data/ahn3_delft/ahn3_cropped_1.laz --forest …]

Overhead: how much longer the whole flow (reading, cutting, Ray, records, writing, proof) takes than the predictor
on the same blocks in memory, one thread each. Start-up is left out: the flow's time counts from when its first
actor begins its first scan. Two actors: the same scans with one actor and with two, one thread each, start-up left
out. Seams: one survey labelled as one file and as nine, the edges through roofs, and as nine without their
neighbours, which shows the seam that there would be. Stages: where the seconds of a scan go, LAZ to labelled LAZ,
as its ledger record says. Scans are simulated unless --scan names one. The network is the ready-made one that is
shipped, another --checkpoint, or, with --train, one of --layers and --channels that learns from simulated scans first.
Prints tables and ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks import segment_memory, segment_seams
from benchmarks.forest import Forest, ForestConfig
from benchmarks.scan_training import Budget, train_on_scans
from benchmarks.segmenting import FEATURES, SCHEME, local_segmenter
from models.network.configurations import DeepGCNConfig
from models.predictor import Predictor
from models.recipes import TrainConfig
from models.weights.checkpoint import read_checkpoint, save_checkpoint
from pointcloud.blocks.block import Block
from pointcloud.blocks.features import num_channels
from pointcloud.dataset.preprocessing import PreprocessConfig
from pointcloud.dataset.splits import SplitRule
from pointcloud.delivery.deliver import decode_beside, decode_for_labels
from pointcloud.delivery.las_copy import write_labelled
from pointcloud.formats.reader import read_cloud
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labelling.label_points import label_points
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig
from pointcloud.storage import ledger
from pointcloud.storage.inputs import Source

_MANY_STEPS = 1_000_000  # the minutes end it


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", default="pretrained/airborne")
    add("--train", action="store_true", help="a network of its own instead")
    add("--minutes", type=float, default=1.0, help="of training")
    add("--layers", type=int, default=7, help="of the ResGCN that is trained")
    add("--channels", type=int, default=32)
    add("--scans", type=int, default=8, help="simulated scans for overhead and scaling")
    add("--scan-size-m", type=float, default=100.0, help="edge of each")
    add("--points-per-m2", type=float, default=10.0)
    add(
        "--seam-size-m", type=float, default=135.0, help="edge of the survey that is cut in nine; 0: no seams"
    )
    add("--seam-figure", type=Path, help="a PNG file that shows the labels and where files alone differ")
    add("--rounds", type=int, default=3, help="turns of flow and predictor; medians are shown")
    add("--scan", help="a LAS or LAZ file for the profile of stages")
    add(
        "--forest",
        action="store_true",
        help="also label the profiled scan with a random forest (jakteristics)",
    )
    add(
        "--memory",
        type=float,
        nargs="*",
        default=[],
        metavar="MILLIONS",
        help="also the actor's peak memory for scans of so many points, as 10 100 (some ten minutes)",
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    # Of the predictor alone, here, and of what Ray starts: one thread each.
    os.environ["RAYON_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    from flows.embedded_server import prefect_api

    with tempfile.TemporaryDirectory(prefix="pointloom-benchmark-") as name:
        folder = Path(name)
        size = SurveyConfig(
            tiles=(options.scans, 1), tile_size_m=options.scan_size_m, points_per_m2=options.points_per_m2
        )
        scans = write_survey(size, folder / "scans")
        checkpoint = train(scans[:2], folder / "checkpoint", options) if options.train else options.checkpoint
        with prefect_api():
            record = measure_flow(scans, checkpoint, folder, options.rounds)
            scan = Path(options.scan) if options.scan else scans[0]
            record |= profile(scan, checkpoint, folder / "profile")
        record["seam_agreement"] = None
        if options.seam_size_m:
            seams = segment_seams.compare(
                checkpoint, folder, options.seam_size_m, options.points_per_m2, options.seam_figure
            )
            record["seam_agreement"] = round(float((seams.nine == seams.whole).mean()), 6)
        if options.memory:
            record["peak_mb"] = segment_memory.compare(options.memory, folder, options.points_per_m2)
        if options.forest:
            rate = forest(scan, folder / "forest")
            record["forest_points_per_second"] = rate
            record["forest_ratio"] = round(record["points_per_second"] / rate, 1)
    print(json.dumps(record))


def train(scans: Sequence[Path], out: Path, options: argparse.Namespace) -> str:
    """A checkpoint that knows simulated scans a little."""
    width = options.channels
    network = DeepGCNConfig(
        in_channels=num_channels(FEATURES), num_classes=len(SCHEME), num_layers=options.layers, channels=width,
        fusion_channels=8 * width, prediction_channels=(4 * width, 2 * width),
    )  # fmt: skip
    cutting = PreprocessConfig(block_config=BlockConfig(), scheme=SCHEME, rule=SplitRule(), required=FEATURES)
    sources = [Source(str(scan), scan.name) for scan in scans]
    save_checkpoint(
        str(out),
        train_on_scans(
            sources, cutting, network, TrainConfig(batch_size=2), Budget(_MANY_STEPS, options.minutes)
        ),
    )
    return str(out)


def measure_flow(scans: Sequence[Path], checkpoint: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Overhead over the predictor alone, and two actors against one: medians over the rounds."""
    blocks = list(blocks_of(scans, checkpoint, folder))
    predictor = Predictor(read_checkpoint(checkpoint))
    for _ in predictor.logits(blocks[:1]):  # loads the kernels
        pass
    overheads, ratios = [], []
    for turn in range(rounds):
        seconds = {
            actors: run_flow(scans, checkpoint, folder / f"flow-{turn}-{actors}", actors) for actors in (1, 2)
        }
        began = time.perf_counter()
        for _ in predictor.logits(blocks):
            pass
        alone = time.perf_counter() - began
        overheads.append(seconds[1] / alone - 1)
        ratios.append(seconds[1] / seconds[2])
        print(
            f"round {turn + 1}: predictor alone {alone:.1f} s, flow {seconds[1]:.1f} s with one actor, "
            f"{seconds[2]:.1f} s with two", flush=True,
        )  # fmt: skip
    print(f"overhead {median(overheads):.1%}, two actors {median(ratios):.2f} times as fast as one")
    return {"overhead": round(median(overheads), 3), "two_actor_ratio": round(median(ratios), 2)}


def blocks_of(scans: Sequence[Path], checkpoint: str, folder: Path) -> Iterator[Block]:
    """The blocks that the flow's actors see of these scans, neighbours and all."""
    record = read_checkpoint(checkpoint, weights=False)
    config = record.block_config
    for scan in local_segmenter(scans, checkpoint, folder)[1]:
        found: list[Block] = []

        def keep(blocks: Iterable[Block], found: list[Block] = found) -> Iterator[tuple[Block, np.ndarray]]:
            for block in blocks:
                found.append(block)
                yield block, np.zeros((len(block), 1), np.float32)

        with tempfile.TemporaryDirectory(dir=folder) as name:
            scratch = Path(name)
            decoded = decode_for_labels(scan.name, scan.uri, scratch / "own", config, record.label_scheme)
            neighbours = [
                decode_beside(other, uri, scratch / str(number), config, decoded)
                for number, (other, uri) in enumerate(scan.neighbours.items())
            ]
            label_points(decoded, neighbours, config, keep, lambda logits: {})
        yield from found


def run_flow(scans: Sequence[Path], checkpoint: str, out: Path, num_actors: int) -> float:
    """Seconds of the segment flow, from when an actor begins the first scan to the flow's end."""
    from flows.segment import SegmentParameters, segment

    segment(
        SegmentParameters(
            scans=[str(scan) for scan in scans], checkpoint=checkpoint, out=str(out), num_actors=num_actors,
            cpus_per_actor=1,
        )
    )  # fmt: skip
    ended, records = time.time(), ledger.read_all(str(out), "segment")
    return ended - min(record.details["begun"] for record in records.values())


def profile(scan: Path, checkpoint: str, out: Path) -> dict[str, Any]:
    """Where the seconds of one scan go in the flow with one actor of one thread."""
    run_flow([scan], checkpoint, out, 1)
    record = ledger.read_all(str(out), "segment")[scan.name]
    stages = record.details["stages"]
    print(f"\n{scan.name}: {record.points_in:,} points, LAZ to labelled LAZ in {record.seconds:.1f} s")
    for stage, seconds in stages.items():
        print(f"{stage:16}{seconds:8.2f} s{seconds / record.seconds:8.1%}")
    rate = record.points_in / record.seconds
    print(f"{rate:,.0f} points/s")
    return {
        "stages": stages,
        "network_share": round(stages["network"] / record.seconds, 3),
        "points_per_second": round(rate),
    }


def forest(scan: Path, folder: Path) -> int:
    """Points/s of the random forest of benchmarks.forest on the same file, LAZ to labelled LAZ, one thread."""
    cloud = read_cloud(str(scan))
    west = cloud.xyz[:, 0] < np.median(cloud.xyz[:, 0])
    grown = Forest([cloud[np.flatnonzero(west)]], SCHEME, ForestConfig())
    began = time.perf_counter()
    cloud = read_cloud(str(scan))
    codes = SCHEME.to_codes(grown.label(cloud))
    write_labelled(str(scan), str(folder / scan.name), codes, np.ones(len(codes), np.float32))
    rate = len(codes) / (time.perf_counter() - began)
    print(f"random forest of 100 trees, LAZ to labelled LAZ: {rate:,.0f} points/s")
    return round(rate)


if __name__ == "__main__":
    main()
