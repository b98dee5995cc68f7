"""The papers' ablation table: one training for each change to a reference network, on the same blocks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated

from cyclopts import Parameter
from prefect import flow
from pydantic import Field

from flows.embedded_server import run
from flows.parameters import described
from flows.train import TrainParameters
from models.network.ablations import ROWS, choose_rows, first_row_of
from models.network.configurations import DeepGCNConfig
from models.recipes import RecipeName
from pointcloud.dataset.resplit import open_blocks
from pointcloud.dataset.store import read_manifest
from pointcloud.storage.files import join
from pointcloud.storage.lock import held
from tasks.studies.report import report_ablation
from tasks.studies.study import TABLE, Training, run_study
from tasks.training.train import check_splits


class AblateParameters(TrainParameters):
    """Which blocks, which rows, and the reference that they change: the paper's ResGCN-28 and its recipe."""

    out: str = Field(description="Folder or URI of the study: the table, pictures, a checkpoint per row.")
    rows: list[str] = Field([], description=f"Rows to train, all where empty: {', '.join(ROWS)}.")
    num_layers: int = described(DeepGCNConfig, "num_layers")
    channels: int = described(DeepGCNConfig, "channels")
    fusion_channels: int = described(DeepGCNConfig, "fusion_channels")
    recipe: RecipeName = Field("paper", description="How every row is trained. What follows changes it.")
    trainings_at_once: int = Field(1, ge=1, description="Trainings that run on Ray at the same time.")

    def trainings(self) -> list[Training]:
        """The trainings of the rows.

        Raises:
            PointloomError: a row is unknown, or makes an impossible network.
        """
        rows, base = choose_rows(self.rows), self.job_of_any_split(self.trainings_at_once)
        trainings = []
        for row in rows:
            network = row.change(base.network)
            folder = join(self.out, "trainings", first_row_of(network, base.network))
            trainings.append(
                Training(
                    name=row.name,
                    group=row.group,
                    about=row.about,
                    job=replace(base, network=network, out=folder),
                )
            )
        return trainings


def check(parameters: AblateParameters) -> None:
    """What can be told before work starts. Raises PointloomError."""
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


def command(*, parameters: Annotated[AblateParameters, Parameter(name="*")]) -> None:
    """The paper's ablation table: dilation, graph, layers, k, depth, width, operator."""
    print(f"table: {run(check, ablate, parameters)}")
