"""What the benchmarks train knows what it saw, as what the train flow trains does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.scan_training import train_on_scans
from models.network.configurations import DeepGCNConfig
from models.recipes import TrainConfig
from pointcloud.blocks.features import num_channels
from pointcloud.dataset.preprocessing import PreprocessConfig
from pointcloud.dataset.splits import SplitRule
from pointcloud.formats.reader import find_scans
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labels import PRESETS
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig

FEATURES = ("xyz", "returns")


def test_a_checkpoint_of_the_benchmarks_knows_what_it_saw(tmp_path: Path) -> None:
    (scan,) = write_survey(SurveyConfig(seed=3, tiles=(1, 1), tile_size_m=40.0, points_per_m2=4.0), tmp_path)
    scheme = PRESETS["ground-vegetation-building"]
    network = DeepGCNConfig(
        in_channels=num_channels(FEATURES), num_classes=len(scheme), num_layers=2, channels=8, k=4,
        fusion_channels=8, prediction_channels=(8, 8),
    )  # fmt: skip
    cutting = PreprocessConfig(
        block_config=BlockConfig(voxel_size_m=1.0),
        scheme=scheme,
        rule=SplitRule(val_fraction=0.0),
        required=FEATURES,
    )
    seen = train_on_scans(find_scans([str(scan)]), cutting, network, TrainConfig(epochs=1)).seen
    assert seen is not None
    assert 0.5 < seen.density.middle < 4.0
    assert seen.delivered is not None
    assert 3.0 < seen.delivered.middle < 6.0, "with the returns of trees"
    assert {"height", "return_number", "number_of_returns"} <= seen.columns.keys()


def test_threads_that_wait_do_not_spin() -> None:
    script = "import os, sys, benchmarks; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True, check=True,
        cwd=Path(__file__).parents[2], timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["PASSIVE", "False"], "set before torch reads it"
