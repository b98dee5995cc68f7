"""Cross-validation: a training for each part of the ground, which tests what the others have trained."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from cyclopts import Parameter
from prefect import flow
from pydantic import Field

from flows.embedded_server import run
from flows.train import TrainParameters
from pointcloud.dataset.folds import Fold, folds_of_areas, folds_of_squares
from pointcloud.dataset.splits import SplitRule
from pointcloud.dataset.store import read_manifest
from pointcloud.errors import PointloomError
from pointcloud.storage.files import join
from pointcloud.storage.lock import held
from tasks.studies.folds import split_into_folds
from tasks.studies.report import report_folds
from tasks.studies.study import TABLE, Training, run_study


class CrossvalParameters(TrainParameters):
    """Which blocks, in which folds, and how each fold is trained. How the dataset itself was split does not matter."""

    out: str = Field(description="Folder or URI of the study: the table, pictures, a checkpoint per fold.")
    by: Literal["areas", "squares"] = Field(
        "squares",
        description="What a fold is made of: squares of ground, or areas, which are the first folders of the scans' "
        "names (Area_1 to Area_6 of S3DIS), or the scans themselves.",
    )
    num_folds: int = Field(0, ge=0, description="Folds; 0: one for each area, or five of squares.")
    area_size_m: float = Field(0.0, ge=0, description="Edge of a square; 0: four tiles.")
    val_fraction: float = Field(
        SplitRule.val_fraction,
        description="Share of what does not test that validates: whole scans (areas), or squares.",
    )
    split_seed: int = Field(SplitRule.seed, description="Another one makes other folds and validation.")
    only: list[str] = Field([], description="Names of the folds to train, such as Area_5; all where empty.")
    trainings_at_once: int = Field(1, ge=1, description="Trainings that run on Ray at the same time.")

    def folds(self) -> list[Fold]:
        """The folds that these parameters ask for. Raises PointloomError where the dataset cannot be divided so."""
        manifest = read_manifest(self.dataset)
        if not any(sum(counts) for counts in manifest.class_counts.values()):
            raise PointloomError(
                f"dataset {self.dataset!r} has no labelled block; check the label scheme against the class codes of "
                "the scans."
            )
        if self.by == "areas":
            scans = [shard.scan for shard in manifest.shards]
            folds = folds_of_areas(scans, self.num_folds, self.val_fraction, self.split_seed)
        else:
            size = self.area_size_m or 4 * manifest.block_config.tile_size_m
            folds = folds_of_squares(size, self.num_folds, self.val_fraction, self.split_seed)
        names = [fold.name for fold in folds]
        for name in self.only:
            if name not in names:
                raise PointloomError(f"there is no fold {name!r}; expected some of {', '.join(names)}.")
        return [fold for fold in folds if not self.only or fold.name in self.only]


def check(parameters: CrossvalParameters) -> None:
    """What can be told before work starts. Raises PointloomError."""
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


def command(*, parameters: Annotated[CrossvalParameters, Parameter(name="*")]) -> None:
    """Cross-validate: areas of S3DIS, or squares of a survey; one table."""
    print(f"table: {run(check, crossval, parameters)}")
