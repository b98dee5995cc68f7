"""Blocks dataset to checkpoint."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter
from prefect import flow
from pydantic import BaseModel, Field

from flows.running import run
from models.configurations import DeepGCNConfig
from models.training import TrainConfig
from pointcloud.features import FEATURES, num_channels
from tasks.train import TrainJob, plan_training, train_network


class TrainParameters(BaseModel):
    """Which blocks, which network, how it is trained, and on how many Ray workers."""

    dataset: str = Field(description="Folder or URI of a blocks dataset.")
    out: str = Field(description="Folder or URI of the checkpoint.")
    features: list[str] = Field(
        ["xyz", "height", "intensity", "returns"],
        description=f"Channels of the network, xyz first; any of {', '.join(FEATURES)}.",
    )
    num_layers: int = Field(
        7, description="Depth: the head and num_layers - 1 dynamic layers (the paper: 28)."
    )
    channels: int = Field(32, description="Width of a layer (the paper: 64).")
    k: int = Field(DeepGCNConfig.k, description="Neighbours of a point.")
    layer: Literal["residual", "residual+", "dense", "plain"] = Field(
        DeepGCNConfig.layer, description="ResGCN, DenseGCN or PlainGCN."
    )
    convolution: Literal["edge", "mr", "sage", "gin"] = Field(
        DeepGCNConfig.convolution, description="EdgeConv, MRConv, GraphSAGE or GIN."
    )
    fusion_channels: int = Field(256, description="Width of the fused feature of a block (the paper: 1024).")
    epochs: int = Field(TrainConfig.epochs, description="Passes over the training blocks.")
    batch_size: int = Field(TrainConfig.batch_size, description="Blocks in a step, over all Ray workers.")
    learning_rate: float = Field(TrainConfig.learning_rate, description="Peak of the one-cycle schedule.")
    label_smoothing: float = Field(
        TrainConfig.label_smoothing, ge=0, lt=1, description="Of the cross-entropy."
    )
    class_weights: bool = Field(TrainConfig.class_weights, description="Weigh rare classes higher.")
    augment: bool = Field(TrainConfig.augment, description="Turn, mirror, scale and jitter the blocks.")
    seed: int = Field(TrainConfig.seed, description="Of weights, order and augmentation.")
    num_workers: int = Field(1, ge=1, description="Ray workers.")
    cpus_per_worker: int = Field(0, ge=0, description="CPUs of each; 0 shares out what this machine has.")
    fresh: bool = Field(
        False, description="Train anew, also where a finished or unfinished training is found."
    )

    def job(self) -> TrainJob:
        """The job these parameters describe. Raises PointloomError where they do not fit together."""
        features = tuple(self.features)
        manifest, cpus = plan_training(self.dataset, features, self.num_workers, self.cpus_per_worker)
        network = DeepGCNConfig(
            in_channels=num_channels(features),
            num_classes=len(manifest.label_scheme),
            num_layers=self.num_layers,
            channels=self.channels,
            k=self.k,
            layer=self.layer,
            convolution=self.convolution,
            fusion_channels=self.fusion_channels,
        )
        training = TrainConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            label_smoothing=self.label_smoothing,
            class_weights=self.class_weights,
            augment=self.augment,
            seed=self.seed,
        )
        return TrainJob(
            self.dataset, self.out, network, features, training, self.num_workers, cpus, self.fresh
        )


def check(parameters: TrainParameters) -> None:
    """What can be told before work starts. Raises PointloomError."""
    parameters.job()


@flow(name="train")
def train(parameters: TrainParameters) -> dict[str, Any]:
    """Train a DeepGCN on a blocks dataset with Ray Train and write the best checkpoint; returns its metrics.

    A finished training is kept, an interrupted one goes on.
    """
    return train_network(parameters.job())


def command(*, parameters: Annotated[TrainParameters, Parameter(name="*")]) -> None:
    """Train a DeepGCN on a blocks dataset."""
    metrics = run(check, train, parameters)
    print(
        f"checkpoint: {parameters.out} (validation mIoU {metrics['val_miou']:.3f}, epoch {metrics['epoch']})"
    )
