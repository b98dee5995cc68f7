"""What a training's key depends on: all that its weights depend on, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.network.configurations import DeepGCNConfig
from models.recipes import TrainConfig
from pointcloud.dataset import store
from tasks.training.job import TrainJob


@pytest.fixture
def job(tmp_path: Path) -> TrainJob:
    (tmp_path / store.MANIFEST).write_text("the blocks")
    return TrainJob(
        dataset=str(tmp_path), out="out", network=DeepGCNConfig(), features=("xyz",), training=TrainConfig(),
        num_workers=2, cpus_per_worker=1, wait_s=1.0, fresh=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"network": DeepGCNConfig(k=8)},
        {"features": ("xyz", "rgb")},
        {"training": TrainConfig(seed=1)},
        {"num_workers": 1},
    ],
    ids=str,
)
def test_other_weights_have_another_key(job: TrainJob, change: dict[str, Any]) -> None:
    assert replace(job, **change).key() != job.key()


def test_blocks_and_another_split_of_them_are_part_of_the_key(job: TrainJob, tmp_path: Path) -> None:
    before = job.key()
    split = tmp_path / "split.parquet"
    split.write_text("a fold")
    assert replace(job, split_file=str(split)).key() != before
    Path(job.dataset, store.MANIFEST).write_text("other blocks")
    assert job.key() != before


def test_where_and_how_it_runs_is_not(job: TrainJob) -> None:
    other = replace(job, out="elsewhere", cpus_per_worker=4, wait_s=9.0, fresh=True, min_workers=1, gpu=True)
    assert other.key() == job.key()
    assert (job.workers_needed, other.workers_needed) == (2, 1)
