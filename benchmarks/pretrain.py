"""Train the ready-made checkpoint on open airborne scans, and score it on ground that it never saw.

    python -m benchmarks.pretrain --data FOLDER [--out pretrained/airborne --epochs 15 …]

FOLDER holds the scans of `TRAIN` and `TEST`; where they come from and under which licences stands in
pretrained/airborne/README.md. Codes outside the classes take no part: AHN's 1 is vegetation and everything else, and
the network is not told which. Ends with one JSON line: the scores on every test scan, at full resolution.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.accuracy import score, summary
from benchmarks.forest import class_indices
from benchmarks.scan_training import train_on_scans
from benchmarks.segmenting import label_scans
from models.network.configurations import DeepGCNConfig
from models.predictor import Predictor
from models.recipes import AIRBORNE, TrainConfig
from models.weights.checkpoint import Checkpoint, save_checkpoint
from pointcloud.blocks.features import num_channels
from pointcloud.dataset.preprocessing import PreprocessConfig
from pointcloud.dataset.splits import SplitRule
from pointcloud.errors import PointloomError
from pointcloud.formats.crop import write_window
from pointcloud.formats.reader import find_scans, read_cloud
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labels import LabelScheme, find_scheme
from pointcloud.storage.inputs import Source

Window = tuple[float, float]

TRAIN: dict[str, Window | None] = {
    "lidarhd_50m/test_data_77050_627760_LA93_IGN69.laz": None,
    "lidarhd_50m/test_data_77055_627755_LA93_IGN69.laz": None,
    "lidarhd_50m/test_data_77055_627760_LA93_IGN69.laz": None,
    "lidarhd_rgb/870000_6618000.subset.postValidation.laz": None,
    "ahn3_delft/ahn3_cropped_1.laz": (84808.0, 84856.0),
    "ahn3_amsterdam/ahn_2386_9702.laz": None,
    "laspy_sdist/file_with_both_wkt_and_geotiff_vlrs.las": None,
}
"""Scan -> the window of x that trains, CRS units; None: all of it."""

TEST: dict[str, Window | None] = {
    "lidarhd_50m/test_data_77060_627755_LA93_IGN69.laz": None,
    "ahn3_delft/ahn3_cropped_1.laz": (84944.0, 85000.0),
}

FEATURES = (
    "xyz", "returns", "shape_1m", "shape_2m", "shape_4m", "shape_8m", "echoes_1m", "echoes_2m", "echoes_4m",
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Train, write the checkpoint and score it; the exit status. Bad input is one sentence and status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--out", default="pretrained/airborne", metavar="FOLDER")
    parser.add_argument("--classes", default="pretrained/airborne/classes.json", metavar="FILE")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    try:
        with tempfile.TemporaryDirectory(prefix="pointloom-pretrain-") as folder:
            scheme = find_scheme(options.classes)
            train = cut_windows(options.data, TRAIN, Path(folder) / "train")
            checkpoint = replace(learn(train, scheme, options.epochs), provenance={"scans": sorted(TRAIN)})
            save_checkpoint(options.out, checkpoint)
            test = cut_windows(options.data, TEST, Path(folder) / "test")
            print(json.dumps({scan.name: score_scan(scan, checkpoint) for scan in sorted(test.iterdir())}))
    except PointloomError as error:
        print(f"pretrain: {error}", file=sys.stderr)
        return 2
    return 0


def cut_windows(data: Path, scans: dict[str, Window | None], folder: Path) -> Path:
    """The windows of the scans as files in a new folder. Raises ScanError for one that cannot be read."""
    folder.mkdir()
    for name, window in scans.items():
        write_window(str(data / name), str(folder / Path(name).name), *(window or (-math.inf, math.inf)))
    return folder


def learn(folder: Path, scheme: LabelScheme, epochs: int) -> Checkpoint:
    """The network of the last epoch; nothing is held out, so nothing chooses an epoch."""
    # Four shifted grids to learn from; who segments has one unless they ask for more.
    blocks = BlockConfig(tile_size_m=16.0, halo_m=2.0, voxel_size_m=0.4, overlap=2)
    network = DeepGCNConfig(
        in_channels=num_channels(FEATURES),
        num_classes=len(scheme),
        num_layers=4,
        channels=32,
        fusion_channels=256,
        prediction_channels=(128, 64),
    )
    plan = TrainConfig(
        epochs=epochs, batch_size=2, learning_rate=3e-3, ema_decay=0.98, class_weights=False, **AIRBORNE
    )
    cutting = PreprocessConfig(
        block_config=blocks, scheme=scheme, rule=SplitRule(val_fraction=0.0), required=FEATURES
    )
    checkpoint = train_on_scans(find_scans([str(folder)]), cutting, network, plan)
    return replace(checkpoint, block_config=replace(blocks, overlap=1))


def score_scan(path: Path, checkpoint: Checkpoint) -> dict[str, object]:
    """Scores over every point of a scan that has a class of the scheme."""
    scheme = checkpoint.label_scheme
    labels = label_scans(Predictor(checkpoint), [Source(str(path), path.name)])
    truth = class_indices(read_cloud(str(path)), scheme)
    return summary(path.name, score(labels, {path.name: truth}, scheme))


if __name__ == "__main__":
    sys.exit(main())
