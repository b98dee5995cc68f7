"""The parameters of crossval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from flows.parameters.train import TrainParameters
from pointcloud.dataset.splits import SplitRule
from pointcloud.errors import PointloomError

if TYPE_CHECKING:
    from pointcloud.dataset.folds import Fold


class CrossvalParameters(TrainParameters):
    """Which blocks, in which folds, and how each fold is trained. How the dataset itself was split does not matter."""

    out: str = Field(description="Folder or URI of the study: the table, pictures, a checkpoint per fold.")
    by: Literal["areas", "squares"] = Field(
        "squares",
        description="What a fold is made of: squares of ground, or areas, which are the first folders of the scans' "
        "names (Area_1 to Area_6 of S3DIS), or the scans themselves.",
    )
    num_folds: int = Field(0, ge=0, description="Number of folds; 0: one for each area, or five of squares.")
    area_size_m: float = Field(0.0, ge=0, description="Edge of a square; 0: four tiles.")
    val_fraction: float = Field(
        SplitRule.val_fraction,
        description="Of the part of each fold that does not test, the share that validates: whole scans (areas), or "
        "squares.",
    )
    split_seed: int = Field(
        SplitRule.seed, description="Seed that decides what is in each fold and what validates."
    )
    only: list[str] = Field([], description="Names of the folds to train, such as Area_5; all where empty.")
    trainings_at_once: int = Field(1, ge=1, description="Trainings that run on Ray at the same time.")

    def folds(self) -> list[Fold]:
        """The folds that these parameters ask for. Raises PointloomError where the dataset cannot be divided so."""
        from pointcloud.dataset.folds import folds_of_areas, folds_of_squares
        from pointcloud.dataset.store import read_manifest

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
