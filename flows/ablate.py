"""The papers' ablation table: one training for each change to a reference network, on the same blocks."""

from __future__ import annotations

from functools import partial

from prefect import flow

from flows.parameters.ablate import AblateParameters
from pointcloud.dataset.resplit import open_blocks
from pointcloud.dataset.store import read_manifest
from pointcloud.storage.files import join
from pointcloud.storage.lock import held
from tasks.studies.report import report_ablation
from tasks.studies.study import TABLE, run_study
from tasks.training.train import check_splits


def check(parameters: AblateParameters) -> None:
    """Check what can be checked before work starts. Raises PointloomError."""
    parameters.trainings()
    check_splits(open_blocks(parameters.dataset))


@flow(name="ablate")
def ablate(parameters: AblateParameters) -> str:
    """Train the rows of the ablation table on one dataset, and write it; returns the URI of the table.

    Finished rows are kept and an interrupted one goes on; rows that describe one network are trained once.
    """
    check(parameters)
    names = read_manifest(parameters.dataset).label_scheme.names
    with held(parameters.out) as lock:
        run_study(
            f"Ablation of {parameters.out}", parameters.out, parameters.trainings(), parameters.trainings_at_once,
            partial(report_ablation, names=names), lock,
        )  # fmt: skip
    return join(parameters.out, TABLE)
