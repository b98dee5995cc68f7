"""Blocks dataset to checkpoint."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from prefect import flow
from pydantic import Field

from flows.embedded_server import run
from flows.parameters import FlowParameters
from models.network.configurations import DeepGCNConfig
from models.recipes import Loss, Optimizer, RecipeName, Schedule, TrainConfig, fusion_channels, recipe
from pointcloud.blocks.features import FEATURES, is_airborne, is_sparse, num_channels
from pointcloud.dataset.resplit import open_blocks
from pointcloud.errors import PointloomError
from pointcloud.storage.lock import held
from tasks.training.train import TrainJob, check_dataset, check_splits, cpus_of_each, train_network

_FUSION_CHANNELS = 256


class TrainParameters(FlowParameters):
    """Which blocks, which network, how it is trained, and on how many Ray workers."""

    dataset: str = Field(description="Folder or URI of a blocks dataset.")
    out: str = Field(description="Folder or URI of the checkpoint.")
    features: list[str] = Field(
        [],
        description="Channels of the network, xyz first; none: those that suit the dataset, returns and the shape of "
        f"surroundings as dense as it is. Any of {', '.join(FEATURES)}.",
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
    fusion_channels: int | None = Field(
        None,
        description="Width of the fused feature of a block (the paper: 1024); 0: none, as by the recipe modern on "
        f"sparse surveys; elsewhere {_FUSION_CHANNELS} unless given.",
    )
    recipe: RecipeName = Field(
        "modern",
        description="How it is trained: modern, or paper, exactly as published. What follows changes it.",
    )
    epochs: int | None = Field(None, description="Passes over the training blocks.")
    batch_size: int | None = Field(None, description="Blocks in a step, over all Ray workers.")
    accumulation: int | None = Field(
        None, description="Parts of a step that go through the network one after the other, for less memory."
    )
    optimizer: Optimizer | None = Field(None, description="AdamW or Adam.")
    schedule: Schedule | None = Field(None, description="Warm-up and cosine decay, or halving.")
    learning_rate: float | None = Field(None, description="At the peak of one_cycle, the start of halving.")
    warm_up: float | None = Field(None, description="Share of all steps until the peak of one_cycle.")
    halving_epochs: int | None = Field(
        None, description="Epochs until the learning rate is halved, with halving."
    )
    loss: Loss | None = Field(None, description="Cross-entropy, focal, or cross-entropy + Lovász-Softmax.")
    focal_gamma: float | None = Field(None, description="γ of the focal loss; 0 is the cross-entropy.")
    label_smoothing: float | None = Field(None, description="Of the cross-entropy.")
    class_weights: bool | None = Field(None, description="Weigh rare classes higher.")
    weight_decay: float | None = Field(None, description="Of the optimizer.")
    clip_norm: float | None = Field(None, description="Gradients are clipped to this norm; 0 leaves them.")
    augment: bool | None = Field(
        None, description="Turn, mirror, scale, stretch and jitter the blocks, and drop channels."
    )
    stretch: float | None = Field(
        None, description="Augmented heights are multiplied by 1 / stretch to stretch."
    )
    crop: float | None = Field(
        None,
        description="Augmented blocks lose up to this share of their points, those farthest from one of them.",
    )
    relief: float | None = Field(
        None,
        description="Augmented blocks lie on slopes, embankments and cuttings of up to this many metres a metre; by "
        "the recipe modern 0.6 where scans have returns.",
    )
    colour_drop: float | None = Field(None, description="Share of augmented blocks that lose their colours.")
    channel_drop: float | None = Field(
        None, description="Share of the other channels that augmented blocks lose."
    )
    ema_decay: float | None = Field(
        None, description="Of a moving average of the weights, which is then kept, such as 0.99; 0 for none."
    )
    mixed_precision: bool | None = Field(None, description="bfloat16 on GPUs.")
    gradient_checkpointing: bool | None = Field(
        None, description="Make layers again on the way back, for less memory in deep networks."
    )
    seed: int = Field(TrainConfig.seed, description="Of weights, order and augmentation.")
    num_workers: int = Field(1, ge=1, description="Ray workers.")
    min_workers: int = Field(
        0,
        ge=0,
        description="Fewest Ray workers to go on with when nodes are lost or not there yet; 0: all of num_workers.",
    )
    gpu: bool = Field(False, description="Each Ray worker trains on a GPU of its own (NCCL).")
    cpus_per_worker: int = Field(0, ge=0, description="CPUs of each; 0 shares out what this machine has.")
    wait_s: float = Field(
        120.0, ge=0, description="Seconds a Ray cluster may take until it has room for all Ray workers."
    )
    fresh: bool = Field(
        False,
        description="Train anew, also where a finished training is found; interrupted, this goes on too.",
    )

    def job(self) -> TrainJob:
        """The job these parameters describe. Raises PointloomError where they do not fit together."""
        job = self.job_of_any_split()
        check_splits(open_blocks(self.dataset))
        return job

    def job_of_any_split(self, at_once: int = 1) -> TrainJob:
        """The job, whatever the dataset holds out; its Ray workers share this machine with those of `at_once` such.

        Raises:
            PointloomError: parameters that do not fit together.
        """
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


def check(parameters: TrainParameters) -> None:
    """What can be told before work starts. Raises PointloomError."""
    parameters.job()


@flow(name="train")
def train(parameters: TrainParameters) -> dict[str, Any]:
    """Train a DeepGCN on a blocks dataset with Ray Train and write the best checkpoint; returns its metrics.

    A finished training is kept, an interrupted one goes on.
    """
    job = parameters.job()
    with held(parameters.out):
        return train_network(job)


def command(*, parameters: Annotated[TrainParameters, Parameter(name="*")]) -> None:
    """Train a DeepGCN on a blocks dataset."""
    metrics = run(check, train, parameters)
    print(
        f"checkpoint: {parameters.out} (validation mIoU {metrics['val_miou']:.3f}, epoch {metrics['epoch']})"
    )
