"""The ready-made checkpoint of the repository, used as its card says: one command labels a new scan."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import laspy
import numpy as np
import pytest

from models.metrics import Scores, confusion
from models.weights.checkpoint import read_checkpoint
from pointcloud.delivery.proof import find_difference
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_one_command_labels_a_new_scan(tmp_path: Path) -> None:
    config = SurveyConfig(seed=4, tiles=(1, 1), tile_size_m=40.0, points_per_m2=8.0)
    (tmp_path / "scans").mkdir()
    scan = write_survey(config, tmp_path / "scans")[0]
    command = [
        sys.executable,
        "-m",
        "flows",
        "segment",
        "--scans",
        str(scan),
        "--checkpoint",
        "pretrained/airborne",
    ]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "labelled"), "--cpus-per-actor", "1"],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = (tmp_path / "labelled").rglob("*.laz")
    assert find_difference(str(scan), str(written)) is None
    scheme = read_checkpoint(str(ROOT / "pretrained" / "airborne"), weights=False).label_scheme
    truth = scheme.to_indices(np.asarray(laspy.read(scan).classification))
    labelled = laspy.read(written)
    codes = np.asarray(labelled.classification)
    assert set(np.unique(codes)) <= {2, 3, 5, 6}, "the card's four codes"
    scores = Scores.from_confusion(confusion(scheme.to_indices(codes), truth, len(scheme)), scheme.names)
    iou = dict(zip(scores.names, scores.iou, strict=True))
    # The scan's own classes are gone: what was copied would score 1.
    assert 0.7 < iou["ground"] < 1, iou
    assert scores.overall_accuracy > 0.6, iou
    # Four classes: whoever is surest of one is at least a quarter sure of it.
    assert np.asarray(labelled.confidence).min() > 0.24
