"""The ready-made checkpoint of the repository labels what it never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.metrics import Scores, confusion
from models.predictor import Predictor
from models.weights.checkpoint import read_checkpoint
from pointcloud.formats.reader import read_cloud
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig
from tests.support.voxel_votes import label_cloud

PRETRAINED = Path(__file__).parents[2] / "pretrained"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in PRETRAINED.glob("*/checkpoint.json")))
def test_a_ready_made_checkpoint_is_small_and_has_a_card_that_credits_its_data(name: str) -> None:
    folder = PRETRAINED / name
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".md"}, (
        "scans stay outside"
    )
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000
    card = (folder / "README.md").read_text()
    assert "IGN, LiDAR HD" in card
    checkpoint = read_checkpoint(str(folder), weights=False)
    assert checkpoint.seen is not None, "segment tells what is unlike the training by it"
    for scan in checkpoint.provenance["scans"]:
        assert Path(scan).parent.name in card


def test_the_airborne_checkpoint_labels_a_simulated_tile(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(str(PRETRAINED / "airborne"))
    scheme = checkpoint.label_scheme
    config = SurveyConfig(seed=4, tiles=(1, 1), tile_size_m=40.0, points_per_m2=8.0)
    cloud = read_cloud(str(write_survey(config, tmp_path)[0]))
    truth = scheme.to_indices(np.asarray(cloud.attributes["classification"]))
    labels, _ = label_cloud(Predictor(checkpoint), "simulated", cloud)
    scores = Scores.from_confusion(confusion(labels, truth, len(scheme)), scheme.names)
    iou = dict(zip(scores.names, scores.iou, strict=True))
    assert iou["ground"] > 0.7, iou
    # One of four classes guessed would be right a quarter of the time.
    assert scores.overall_accuracy > 0.6, iou
