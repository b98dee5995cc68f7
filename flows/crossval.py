"""Cross-validation: a training for each part of the ground, which tests what the others have trained."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from prefect import flow

from flows.parameters.crossval import CrossvalParameters
from pointcloud.dataset.store import read_manifest
from pointcloud.storage.files import join
from pointcloud.storage.lock import held
from tasks.studies.folds import split_into_folds
from tasks.studies.report import report_folds
from tasks.studies.study import TABLE, Training, run_study


def check(parameters: CrossvalParameters) -> None:
    """Check what can be checked before work starts. Raises PointloomError."""
    parameters.job_of_any_split()
    parameters.folds()


@flow(name="crossval")
def crossval(parameters: CrossvalParameters) -> str:
    """Train and test a DeepGCN fold by fold, and write one table; returns its URI.

    Finished folds are kept and an interrupted one goes on. In each fold validation picks the epoch, and the test is
    scored once.
    """
    folds, base = parameters.folds(), parameters.job_of_any_split(parameters.trainings_at_once)
    names = read_manifest(parameters.dataset).label_scheme.names
    with held(parameters.out) as lock:
        files = split_into_folds(parameters.dataset, folds, parameters.out)
        trainings = [
            Training(
                name=fold.name,
                group="folds",
                about="tests what the rest has trained",
                job=replace(
                    base, out=join(parameters.out, "trainings", fold.name), split_file=files[fold.name]
                ),
            )
            for fold in folds
        ]
        run_study(
            f"Cross-validation of {parameters.out}", parameters.out, trainings, parameters.trainings_at_once,
            partial(report_folds, names=names), lock,
        )  # fmt: skip
    return join(parameters.out, TABLE)
