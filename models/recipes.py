"""How a network is trained, by name: the paper's recipe as published, and a modern one. Every field may be changed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from pointcloud.errors import PointloomError

Optimizer = Literal["adamw", "adam"]
Schedule = Literal["one_cycle", "halving"]
Loss = Literal["cross_entropy", "focal", "lovasz"]
RecipeName = Literal["modern", "paper"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How one network is trained. The defaults are the recipe `modern`.

    Each field says what it does in its annotation; the parameters of the flows take their descriptions from there
    (`flows.parameters.base`).

    Raises:
        PointloomError: a value out of its range.
    """

    epochs: Annotated[int, Field(description="Passes over the training blocks.")] = 60
    batch_size: Annotated[
        int,
        Field(description="Blocks in one optimizer step, over all Ray workers and micro-batches together."),
    ] = 4
    accumulation: Annotated[
        int,
        Field(
            description="Number of micro-batches that a Ray worker's share of a step is split into; they go through "
            "the network one after the other, for less memory. Batch norm normalises each on its own."
        ),
    ] = 1
    optimizer: Annotated[
        Optimizer, Field(description="Adam, or AdamW, which decouples the weight decay.")
    ] = "adamw"
    schedule: Annotated[
        Schedule,
        Field(description="one_cycle: warm-up and cosine decay; halving: half every halving_epochs."),
    ] = "one_cycle"
    learning_rate: Annotated[
        float, Field(description="Learning rate at the peak of one_cycle, or at the start of halving.")
    ] = 4e-3
    warm_up: Annotated[float, Field(description="Share of all steps until the peak of one_cycle.")] = 0.15
    halving_epochs: Annotated[
        int, Field(description="With the schedule halving: epochs until the learning rate is halved.")
    ] = 20
    weight_decay: Annotated[float, Field(description="Weight decay of the optimizer.")] = 0.01
    loss: Annotated[
        Loss,
        Field(
            description="Cross-entropy, focal (Lin et al. 2017), or lovasz: cross-entropy + Lovász-Softmax (Berman et "
            "al. 2018)."
        ),
    ] = "cross_entropy"
    focal_gamma: Annotated[float, Field(description="γ of the focal loss; 0 is the cross-entropy.")] = 2.0
    label_smoothing: Annotated[float, Field(description="Label smoothing of the cross-entropy.")] = 0.1
    class_weights: Annotated[
        bool, Field(description="Weigh classes by 1 / sqrt(frequency) in the training split.")
    ] = True
    clip_norm: Annotated[float, Field(description="Gradients are clipped to this norm; 0: no clipping.")] = (
        1.0
    )
    augment: Annotated[
        bool,
        Field(
            description="Change the training blocks at random: turn about the vertical, mirror, scale, stretch, "
            "jitter, crop, lay on slopes, drop channels."
        ),
    ] = True
    stretch: Annotated[
        float,
        Field(
            description="Augmented heights are multiplied by a factor from 1 / stretch to stretch; 1: no change."
        ),
    ] = 1.5
    crop: Annotated[
        float,
        Field(
            description="Augmented blocks lose up to this share of their points: those farthest from a random point."
        ),
    ] = 0.0
    relief: Annotated[
        float,
        Field(
            description="Augmented blocks are laid on slopes, embankments and cuttings that rise up to this many "
            "metres in one metre; the recipe modern takes 0.6 where scans have returns."
        ),
    ] = 0.0
    rugged: Annotated[
        float,
        Field(
            description="Probability that an augmented block lies on a cliff, on terraces, on bare rock or on scree."
        ),
    ] = 0.0
    thinning: Annotated[
        float,
        Field(
            description="Half of the augmented blocks are thinned at random, by up to this factor, before their "
            "features are made; 1: no change."
        ),
    ] = 1.0
    return_drop: Annotated[
        float,
        Field(
            description="Probability that an augmented block keeps the first and the last return of each pulse "
            "only, or the first."
        ),
    ] = 0.0
    colour_drop: Annotated[
        float,
        Field(description="Probability that an augmented block loses its colours, where rgb is a feature."),
    ] = 0.2
    channel_drop: Annotated[
        float,
        Field(description="Probability that an augmented block loses a channel, for each but xyz and rgb."),
    ] = 0.2
    ema_decay: Annotated[
        float,
        Field(
            description="Decay of an exponential moving average of the weights, such as 0.99. The average is "
            "validated and kept in place of the weights; it covers about the last 1 / (1 − decay) steps. 0: no average."
        ),
    ] = 0.0
    mixed_precision: Annotated[
        bool, Field(description="bfloat16 autocast on GPUs; CPUs always train in float32.")
    ] = True
    gradient_checkpointing: Annotated[
        bool,
        Field(
            description="Compute the backbone's layers again in the backward pass instead of keeping them, for less "
            "memory in deep networks."
        ),
    ] = False
    seed: Annotated[
        int, Field(description="Seed of the first weights, the order of the blocks and the augmentation.")
    ] = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulation", "halving_epochs"):
            if getattr(self, name) < 1:
                raise PointloomError(f"{name} must be 1 or more, found {getattr(self, name)}.")
        if not 0 < self.learning_rate < math.inf:
            raise PointloomError(f"learning_rate must be positive, found {self.learning_rate}.")
        for name in ("stretch", "thinning"):
            if not 1 <= getattr(self, name) < math.inf:
                raise PointloomError(f"{name} must be 1 or more, found {getattr(self, name)}.")
        for name in ("weight_decay", "clip_norm", "focal_gamma", "relief"):
            if not 0 <= getattr(self, name) < math.inf:
                raise PointloomError(f"{name} must be 0 or positive, found {getattr(self, name)}.")
        shares = ("warm_up", "label_smoothing", "crop", "colour_drop", "channel_drop", "ema_decay")
        for name in (*shares, "rugged", "return_drop"):
            if not 0 <= getattr(self, name) < 1:
                raise PointloomError(f"{name} must be at least 0 and below 1, found {getattr(self, name)}.")
        for name, allowed in (("optimizer", Optimizer), ("schedule", Schedule), ("loss", Loss)):
            if getattr(self, name) not in get_args(allowed):
                raise PointloomError(
                    f"{name} must be one of {', '.join(get_args(allowed))}, found {getattr(self, name)!r}."
                )

    def blocks_at_once(self, num_workers: int) -> int:
        """Blocks that go through the network of one of `num_workers` Ray workers together.

        Raises:
            PointloomError: the batch cannot be shared out evenly.
        """
        shares = num_workers * self.accumulation
        if self.batch_size % shares:
            raise PointloomError(
                f"batch_size {self.batch_size} cannot be shared out among {num_workers} Ray worker(s) with "
                f"accumulation {self.accumulation}; choose a multiple of {shares}."
            )
        return self.batch_size // shares

    def with_epochs(self, epochs: int) -> TrainConfig:
        """The same training over this number of epochs, its schedule stretched or shortened with it."""
        halving = max(1, round(self.halving_epochs * epochs / self.epochs))
        return replace(self, epochs=epochs, halving_epochs=halving)

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold."""
        return asdict(self)


RECIPES: dict[RecipeName, TrainConfig] = {
    "modern": TrainConfig(),
    # Li et al., ICCV 2019, and its PyTorch reference: Adam 1e-3, halved every 20 of 100 epochs, nothing else.
    "paper": TrainConfig(
        epochs=100,
        batch_size=16,
        optimizer="adam",
        schedule="halving",
        learning_rate=1e-3,
        halving_epochs=20,
        weight_decay=0.0,
        label_smoothing=0.0,
        class_weights=False,
        clip_norm=0.0,
        augment=False,
        stretch=1.0,
        crop=0.0,
        relief=0.0,
        rugged=0.0,
        thinning=1.0,
        return_drop=0.0,
        colour_drop=0.0,
        channel_drop=0.0,
        mixed_precision=False,
    ),
}


AIRBORNE: dict[str, Any] = {"relief": 0.6}
"""What `modern` is on scans with returns, as `pointcloud.blocks.features.is_airborne` means it
(docs/benchmarks/accuracy.md).

Networks that flat tiles had trained took hillsides and dams for buildings. Where all ground is flat it costs points:
embankments look like flat roofs, and a car park on a roof became ground.
Floors of rooms are level, so rooms go without.
"""

SPARSE: dict[str, Any] = {"class_weights": False, "crop": 0.8}
"""What `modern` is on sparse surveys, as `pointcloud.blocks.features.is_sparse` means it (docs/benchmarks/accuracy.md).

Their tiles are large and few: networks trained long on whole blocks failed elsewhere, most likely because the fused
vector told them which block it was. Rare classes that are weighed higher are found where they are not.
`fusion_channels` goes with it.
"""


def recipe(name: RecipeName, *, airborne: bool = False, sparse: bool = False, **changes: Any) -> TrainConfig:
    """The recipe of this name, for airborne scans, sparse surveys or others.

    Fields that are given and are not None are changed.

    Raises:
        PointloomError: an unknown recipe, or a value out of its range.
    """
    if name not in RECIPES:
        raise PointloomError(f"recipe must be one of {', '.join(RECIPES)}, found {name!r}.")
    given = {field: value for field, value in changes.items() if value is not None}
    return replace(RECIPES[name], **recipe_changes(name, airborne=airborne, sparse=sparse) | given)


def recipe_changes(name: RecipeName, *, airborne: bool, sparse: bool) -> dict[str, Any]:
    """The fields in which a recipe differs on such scans; only `modern` differs in any."""
    return (AIRBORNE if airborne else {}) | (SPARSE if sparse else {}) if name == "modern" else {}


def fusion_channels(name: RecipeName, *, sparse: bool, width: int) -> int:
    """Of the network that goes with a recipe: width, but on sparse surveys `modern` leaves the fused vector out.

    Of few large blocks it says which one this is: on half of such a tile a network without it was one point of mIoU
    better (docs/benchmarks/accuracy.md).
    """
    return 0 if sparse and name == "modern" else width
