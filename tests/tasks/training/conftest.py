"""A training of a small dataset, which a test may do as a whole or in part."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.network.configurations import DeepGCNConfig
from models.recipes import recipe
from tasks.training.job import TrainJob
from tests.support.clouds import SCHEME
from tests.support.datasets import write_dataset

SMALL = DeepGCNConfig(
    in_channels=3, num_classes=len(SCHEME), num_layers=3, channels=4, k=4, fusion_channels=8
)


@pytest.fixture
def small_job(tmp_path: Path) -> TrainJob:
    write_dataset(tmp_path / "blocks")
    return TrainJob(
        dataset=str(tmp_path / "blocks"), out=str(tmp_path / "out"), network=SMALL, features=("xyz",),
        training=recipe("modern", epochs=2, batch_size=4), num_workers=1, cpus_per_worker=1, wait_s=1.0, fresh=False,
    )  # fmt: skip
