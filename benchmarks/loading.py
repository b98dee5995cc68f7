"""Training with blocks made beside it, in processes of their own, against one that makes them itself.

    python -m benchmarks.loading [--threads 2 --steps 40 --rounds 3]

The train flow's step and blocks: a simulated survey of 18 points per m², voxels of 0.25 m, the default features and
augmentation of airborne scans. Both take turns in one process; what starting the others costs is in it. Ends with one
JSON line: seconds of a step each (medians of the rounds) and their ratio.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.scan_training import cut, step_seconds
from models.data.augmentation import Augmentation
from models.data.dataset import BlockDataset, batches, num_loaders
from models.network.configurations import DeepGCNConfig
from models.recipes import AIRBORNE, TrainConfig
from pointcloud.blocks.features import default_features, num_channels
from pointcloud.dataset import splits
from pointcloud.dataset.preprocessing import PreprocessConfig
from pointcloud.dataset.splits import SplitRule
from pointcloud.dataset.store import read_blocks
from pointcloud.errors import PointloomError
from pointcloud.formats.reader import find_scans
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labels import find_scheme
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig

SCHEME = find_scheme("ground-vegetation-building")


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; the exit status. Bad input is one sentence and status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="of the training: the CPUs of a Ray worker")
    parser.add_argument("--steps", type=int, default=40, help="in a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaders = num_loaders(options.threads, device.type == "cuda")
    if not loaders:
        print(
            "loading: on one CPU the training makes its blocks itself; use --threads 2.",
            file=sys.stderr,
        )
        return 2
    torch.set_num_threads(options.threads)
    plan = TrainConfig(batch_size=2, class_weights=False, **AIRBORNE)
    with tempfile.TemporaryDirectory(prefix="pointloom-loading-") as folder:
        try:
            items, network, tile_m = blocks(Path(folder), plan)
        except PointloomError as error:
            print(f"loading: {error}", file=sys.stderr)
            return 2
    seconds: dict[int, list[float]] = {0: [], loaders: []}
    for _ in range(options.rounds):
        for number, found in seconds.items():
            taken = batches(items, number, batch_size=plan.batch_size, shuffle=True)
            found.append(step_seconds(network, device, taken, plan, tile_m, SCHEME.names, options.steps))
    alone, beside = (float(np.median(found)) for found in seconds.values())
    record = {"alone_s": round(alone, 3), "beside_s": round(beside, 3), "ratio": round(alone / beside, 2)}
    print(json.dumps(record | {"loaders": loaders, "threads": options.threads, "device": str(device)}))
    return 0


def blocks(folder: Path, plan: TrainConfig) -> tuple[BlockDataset, DeepGCNConfig, float]:
    """Of a simulated survey, in memory: the training's items, a network for them, and their tile size in metres."""
    write_survey(SurveyConfig(seed=0, tile_size_m=72.0, tiles=(1, 1), points_per_m2=18.0), folder)
    config = BlockConfig(tile_size_m=12.0, halo_m=2.0, voxel_size_m=0.25, overlap=2)
    features = default_features(config, {"return_number", "number_of_returns"})
    cutting = PreprocessConfig(
        block_config=config, scheme=SCHEME, rule=SplitRule(val_fraction=0.0), required=features
    )
    manifest = cut(find_scans([str(folder)]), cutting, folder)
    items = BlockDataset(
        read_blocks(str(folder), manifest, splits.TRAIN), features, manifest.statistics,
        Augmentation.of(plan, features, config),
    )  # fmt: skip
    network = DeepGCNConfig(
        in_channels=num_channels(features), num_classes=len(SCHEME), num_layers=4, channels=32, fusion_channels=256,
        prediction_channels=(128, 64),
    )  # fmt: skip
    return items, network, config.tile_size_m


if __name__ == "__main__":
    sys.exit(main())
