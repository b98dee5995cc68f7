"""Blocks dataset to checkpoint."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.parameters.train import TrainParameters
from pointcloud.storage.lock import held
from tasks.training.train import train_network


def check(parameters: TrainParameters) -> None:
    """Check what can be checked before work starts. Raises PointloomError."""
    parameters.job()


@flow(name="train")
def train(parameters: TrainParameters) -> dict[str, Any]:
    """Train a DeepGCN on a blocks dataset with Ray Train and write the best checkpoint; returns its metrics.

    A finished training is kept, an interrupted one goes on.
    """
    job = parameters.job()
    with held(parameters.out) as lock:
        return train_network(job, lock)
