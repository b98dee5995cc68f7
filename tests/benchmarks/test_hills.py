"""The hills benchmark: hills as steep as asked, and scores of the scan as it is and laid on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("jakteristics", reason="pip install 'pointloom[bench]'")

from benchmarks import hills
from benchmarks.accuracy import score
from benchmarks.forest import class_indices
from models.weights.checkpoint import save_checkpoint
from pointcloud.formats.reader import read_cloud
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig
from tests.models.test_predictor import make_predictor
from tests.support.voxel_votes import label_cloud


@pytest.fixture(autouse=True)
def _same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("slope", [0.1, 0.4])
def test_hills_are_as_steep_as_asked_and_of_their_seed(slope: float) -> None:
    grid = np.stack(np.meshgrid(*[np.arange(0.0, 400.0, 2.0)] * 2, indexing="ij"), axis=-1)
    corner = np.array([652_000.0, 6_600_000.0])
    made = [hills.hills(grid.reshape(-1, 2) + corner, slope, seed).reshape(200, 200) for seed in (1, 1, 2)]
    steep = np.hypot(*np.gradient(made[0], 2.0))
    assert np.sqrt((steep**2).mean()) == pytest.approx(slope, rel=0.15)
    np.testing.assert_array_equal(made[0], made[1])
    assert np.abs(made[0] - made[2]).max() > 1
    assert not hills.hills(grid.reshape(-1, 2), 0.0, 1).any()


def test_a_checkpoint_is_scored_on_the_scan_as_it_is_and_on_hills(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = make_predictor()
    save_checkpoint(str(tmp_path / "checkpoint"), predictor.checkpoint)
    (scan,) = write_survey(SurveyConfig(seed=3, tile_size_m=30.0, tiles=(1, 1), points_per_m2=3.0), tmp_path)
    options = [
        "--checkpoint",
        str(tmp_path / "checkpoint"),
        "--scan",
        str(scan),
        "--slopes",
        "0.5",
        "--threads",
        "1",
    ]
    assert hills.main(options) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(record) == ["0", "0.5"]
    cloud, scheme = read_cloud(str(scan)), predictor.checkpoint.label_scheme
    truth = {"a": class_indices(cloud, scheme)}
    flat = score({"a": label_cloud(predictor, "a", cloud)[0]}, truth, scheme)
    assert record["0"]["miou"] == round(flat.miou or 0, 4)
    assert record["0.5"] != record["0"]


def test_a_missing_checkpoint_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hills.main(["--checkpoint", str(tmp_path), "--scan", "no.laz"]) == 2
    assert capsys.readouterr().err.startswith("hills: ")
