"""The parameters of ablate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from flows.parameters.base import described
from flows.parameters.train import TrainParameters
from models.network.ablations import ROWS, choose_rows, first_row_of
from models.network.configurations import DeepGCNConfig
from models.recipes import RecipeName
from pointcloud.storage.files import join

if TYPE_CHECKING:
    from tasks.studies.study import Training


class AblateParameters(TrainParameters):
    """Which blocks, which rows, and the reference that they change: the paper's ResGCN-28 and its recipe."""

    out: str = Field(description="Folder or URI of the study: the table, pictures, a checkpoint per row.")
    rows: list[str] = Field([], description=f"Rows to train, all where empty: {', '.join(ROWS)}.")
    num_layers: int = described(DeepGCNConfig, "num_layers")
    channels: int = described(DeepGCNConfig, "channels")
    fusion_channels: int = described(DeepGCNConfig, "fusion_channels")
    recipe: RecipeName = Field(
        "paper",
        description="How every row is trained. The options that follow change single settings of the recipe.",
    )
    trainings_at_once: int = Field(1, ge=1, description="Trainings that run on Ray at the same time.")

    def trainings(self) -> list[Training]:
        """The trainings of the rows.

        Raises:
            PointloomError: a row is unknown, or makes an impossible network.
        """
        from tasks.studies.study import Training  # with Ray

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
