"""A sample is measured as an actor labels, counts the points of whole blocks, and is kept nowhere."""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import laspy
import pytest

from models import predictor
from models.weights.checkpoint import save_checkpoint
from pointcloud.labelling.options import LabelOptions
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig
from tasks.collection.plan import ScanToDo
from tasks.segmenting import estimate
from tasks.segmenting.labeller import ScanLabeller
from tasks.segmenting.segment import plan_segmenting
from tests.models.test_predictor import make_predictor

SURVEY = SurveyConfig(seed=3, tile_size_m=40.0, tiles=(1, 1), points_per_m2=3.0)


@pytest.mark.parametrize("overlap", [1, 2])
@pytest.mark.parametrize("limit_s", [20.0, -1.0])
def test_a_sample_counts_the_points_of_its_blocks_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlap: int, limit_s: float
) -> None:
    (scan,) = write_survey(SURVEY, tmp_path / "scans")
    made = make_predictor(voxel_size_m=1.0).checkpoint
    made = replace(made, block_config=replace(made.block_config, max_points=64, halo_m=0.0))
    save_checkpoint(str(tmp_path / "checkpoint"), made)
    options = LabelOptions(overlap=overlap)
    job = plan_segmenting(
        checkpoint=str(tmp_path / "checkpoint"), out=str(tmp_path / "out"), options=options, num_actors=2,
        cpus_per_actor=1, memory_mb=1500, time_limit_s=60.0,
    )  # fmt: skip
    counted: list[float] = []

    def count(*arguments: object) -> float:
        counted.append(points_of(*arguments))
        return counted[-1]

    points_of = estimate._points_of
    monkeypatch.setattr(estimate, "_points_of", count)
    monkeypatch.setattr(estimate, "_SAMPLE_SECONDS", limit_s)
    monkeypatch.setattr(predictor, "_BATCH_POINTS", 200)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    with closing(ScanLabeller(job)) as labeller:
        sample = estimate._measure(labeller, ScanToDo(name=scan.name, uri=str(scan), key=""), job.config)
    whole = len(laspy.read(scan).points)
    assert sample.scan == scan.name
    assert 0 < sample.seconds < 60
    if limit_s > 0:
        assert sample.points == whole
        assert sum(counted) == pytest.approx(whole, rel=0.03)  # a quarter without points counts nowhere
    else:
        assert 0 < sum(counted) == sample.points < whole / 4
    assert not list((tmp_path / "scratch").iterdir())
    assert not (tmp_path / "out").exists()
