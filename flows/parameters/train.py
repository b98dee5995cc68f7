"""The parameters of train."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from pydantic import ConfigDict, Field, create_model

from flows.parameters.base import FlowParameters, described, optional_fields
from models.network.configurations import Convolution, DeepGCNConfig, LayerKind
from models.recipes import RecipeName, TrainConfig, fusion_channels, recipe
from pointcloud.blocks.features import FEATURES, is_airborne, is_sparse, num_channels
from pointcloud.errors import PointloomError

if TYPE_CHECKING:
    from tasks.training.job import TrainJob

_FUSION_CHANNELS = 256


class NetworkParameters(FlowParameters):
    """Which blocks, and which network."""

    dataset: str = Field(description="Folder or URI of a blocks dataset.")
    out: str = Field(description="Folder or URI of the checkpoint.")
    features: list[str] = Field(
        [],
        description="Channels of the network, xyz first. Without this option those that suit the dataset: among others "
        f"returns and the shape of surroundings, in radii that suit its voxels. Any of {', '.join(FEATURES)}.",
    )
    num_layers: int = described(DeepGCNConfig, "num_layers", 7)
    channels: int = described(DeepGCNConfig, "channels", 32)
    k: int = described(DeepGCNConfig, "k")
    layer: LayerKind = described(DeepGCNConfig, "layer")
    convolution: Convolution = described(DeepGCNConfig, "convolution")
    fusion_channels: int | None = described(
        DeepGCNConfig,
        "fusion_channels",
        None,
        f"Unless given, {_FUSION_CHANNELS}; with the recipe modern 0 on sparse surveys.",
    )
    recipe: RecipeName = Field(
        "modern",
        description="How the network is trained: modern, or paper, exactly as published. The options that follow "
        "change single settings of the recipe.",
    )


if TYPE_CHECKING:  # a model that is made when it is imported has no fields that mypy could see

    class RecipeParameters(NetworkParameters):
        """Which blocks, which network, and what is changed in the recipe: a field for each of `TrainConfig`'s."""

        model_config = ConfigDict(extra="allow", frozen=True)

else:
    RecipeParameters = create_model(
        "RecipeParameters", __base__=NetworkParameters, __module__=__name__, **optional_fields(TrainConfig)
    )


class TrainParameters(RecipeParameters):
    """Which blocks, which network, how it is trained, and on how many Ray workers."""

    num_workers: int = Field(1, ge=1, description="Number of Ray workers.")
    min_workers: int = Field(
        0,
        ge=0,
        description="Fewest Ray workers to go on with when nodes are lost or not there yet; 0: all of num_workers.",
    )
    gpu: bool = Field(False, description="Each Ray worker trains on a GPU of its own (NCCL).")
    cpus_per_worker: int = Field(
        0, ge=0, description="CPUs of each Ray worker; 0: the CPUs of this machine are shared out."
    )
    wait_s: float = Field(
        120.0, ge=0, description="Seconds a Ray cluster may take until it has room for all Ray workers."
    )
    fresh: bool = Field(
        False,
        description="Train anew, also where a finished training is found. If this training is interrupted, the same "
        "command continues it.",
    )

    def job(self) -> TrainJob:
        """The job these parameters describe. Raises PointloomError where they do not fit together."""
        from pointcloud.dataset.resplit import open_blocks
        from tasks.training.train import check_splits

        job = self.job_of_any_split()
        check_splits(open_blocks(self.dataset))
        return job

    def job_of_any_split(self, at_once: int = 1) -> TrainJob:
        """The job, whatever the split of the dataset; `at_once` such jobs share the CPUs of this machine.

        Raises:
            PointloomError: parameters that do not fit together.
        """
        from tasks.training.job import TrainJob
        from tasks.training.train import check_dataset, cpus_of_each  # with torch and Ray

        manifest, features = check_dataset(self.dataset, tuple(self.features))
        sparse = is_sparse(manifest.block_config)
        fusion = fusion_channels(self.recipe, sparse=sparse, width=_FUSION_CHANNELS)
        network = DeepGCNConfig(
            in_channels=num_channels(features),
            num_classes=len(manifest.label_scheme),
            num_layers=self.num_layers,
            channels=self.channels,
            k=self.k,
            layer=self.layer,
            convolution=self.convolution,
            fusion_channels=fusion if self.fusion_channels is None else self.fusion_channels,
        )
        given = {f.name: getattr(self, f.name) for f in fields(TrainConfig)}
        training = recipe(self.recipe, airborne=is_airborne(manifest.attributes), sparse=sparse, **given)
        if self.min_workers > self.num_workers:
            raise PointloomError(
                f"min_workers {self.min_workers} is more than num_workers {self.num_workers}."
            )
        for num_workers in range(self.min_workers or self.num_workers, self.num_workers + 1):
            training.blocks_at_once(num_workers)
        return TrainJob(
            dataset=self.dataset,
            out=self.out,
            network=network,
            features=features,
            training=training,
            num_workers=self.num_workers,
            cpus_per_worker=cpus_of_each(self.num_workers * at_once, self.cpus_per_worker),
            wait_s=self.wait_s,
            min_workers=self.min_workers,
            gpu=self.gpu,
            fresh=self.fresh,
        )
