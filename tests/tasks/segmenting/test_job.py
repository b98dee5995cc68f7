"""What a job says of the checkpoint that it uses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.weights.checkpoint import save_checkpoint
from pointcloud.labelling.options import LabelOptions
from tasks.segmenting.job import SegmentJob
from tasks.segmenting.segment import plan_segmenting
from tests.models.test_predictor import make_predictor


def planned(folder: Path, **provenance: str) -> SegmentJob:
    checkpoint = make_predictor(voxel_size_m=1.0).checkpoint
    metrics = {"epoch": 3, "val_miou": 0.5}
    save_checkpoint(str(folder / "checkpoint"), replace(checkpoint, provenance=provenance, metrics=metrics))
    return plan_segmenting(
        checkpoint=str(folder / "checkpoint"), out=str(folder / "out"), options=LabelOptions(), num_actors=1,
        cpus_per_actor=0, memory_mb=1500, time_limit_s=30.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("provenance", "said"),
    [({"unfinished": "key"}, "has not finished"), ({"stopped": "why"}, "was stopped before its end")],
)
def test_a_checkpoint_that_is_still_training_is_named_as_such(
    tmp_path: Path, provenance: dict[str, str], said: str
) -> None:
    warning = planned(tmp_path, **provenance).warning
    assert said in warning
    assert str(tmp_path / "checkpoint") in warning
    assert "best epoch so far: 3, validation mIoU 0.500" in warning
    assert warning.endswith(".")
    assert warning.count(". ") == 0


def test_a_finished_checkpoint_needs_no_warning(tmp_path: Path) -> None:
    assert planned(tmp_path, key="abc").warning == ""
