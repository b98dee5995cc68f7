"""How a network is trained, by name: the paper's recipe as published, and today's. Every field may be changed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from pointcloud.errors import PointloomError

Optimizer = Literal["adamw", "adam"]
Schedule = Literal["one_cycle", "halving"]
Loss = Literal["cross_entropy", "focal", "lovasz"]
RecipeName = Literal["modern", "paper"]


@dataclass(frozen=True)
class TrainConfig:
    """One training. The defaults are the recipe `modern`.

    Attributes:
        epochs: passes over the training blocks.
        batch_size: blocks in one optimizer step, over all Ray workers and parts together.
        accumulation: parts in which a Ray worker's share of a step goes through the network one after the other,
            for less memory. Batch norm then normalises every part on its own.
        optimizer: Adam, or AdamW with decoupled weight decay.
        schedule: one_cycle, a warm-up and a cosine decay; halving, one half every `halving_epochs`.
        learning_rate: at its peak (one_cycle) or at the start (halving).
        warm_up: share of all steps until the peak of one_cycle.
        halving_epochs: of the schedule halving.
        loss: cross-entropy; focal (Lin et al. 2017); lovasz, cross-entropy + Lovász-Softmax (Berman et al. 2018).
        focal_gamma: the focal loss's γ; 0 is the cross-entropy.
        label_smoothing: of the cross-entropy.
        class_weights: weigh classes by 1 / sqrt(frequency) in the training split.
        clip_norm: gradients are clipped to this norm; 0 leaves them.
        augment: turn about the vertical, mirror, scale, stretch heights, jitter, drop channels.
        stretch: with `augment`, heights are multiplied by 1 / stretch to stretch.
        crop: with `augment`, up to this share of a block's points is left out, those farthest from a random one.
        relief: with `augment`, blocks lie on slopes, embankments and cuttings of up to this many metres a metre.
        colour_drop: with `augment`, the probability that a block loses its colours, where rgb is a feature.
        channel_drop: with `augment`, the probability that a block loses a channel, of each but xyz and rgb.
        ema_decay: of an exponential moving average of the weights, which is then what is validated and kept; it
            looks back some 1 / (1 − decay) steps. 0: none.
        mixed_precision: bfloat16 autocast on GPUs; CPUs train in float32 whatever it says.
        gradient_checkpointing: backbone layers are made again on the way back instead of kept, for less memory.
        seed: of weights, order and augmentation.

    Raises:
        PointloomError: settings that cannot be.
    """

    epochs: int = 60
    batch_size: int = 4
    accumulation: int = 1
    optimizer: Optimizer = "adamw"
    schedule: Schedule = "one_cycle"
    learning_rate: float = 4e-3
    warm_up: float = 0.15
    halving_epochs: int = 20
    weight_decay: float = 0.01
    loss: Loss = "cross_entropy"
    focal_gamma: float = 2.0
    label_smoothing: float = 0.1
    class_weights: bool = True
    clip_norm: float = 1.0
    augment: bool = True
    stretch: float = 1.5
    crop: float = 0.0
    relief: float = 0.0
    colour_drop: float = 0.2
    channel_drop: float = 0.2
    ema_decay: float = 0.0
    mixed_precision: bool = True
    gradient_checkpointing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulation", "halving_epochs"):
            if getattr(self, name) < 1:
                raise PointloomError(f"{name} must be 1 or more, found {getattr(self, name)}.")
        if not 0 < self.learning_rate < math.inf:
            raise PointloomError(f"learning_rate must be positive, found {self.learning_rate}.")
        if not 1 <= self.stretch < math.inf:
            raise PointloomError(f"stretch must be 1 or more, found {self.stretch}.")
        for name in ("weight_decay", "clip_norm", "focal_gamma", "relief"):
            if not 0 <= getattr(self, name) < math.inf:
                raise PointloomError(f"{name} must be 0 or positive, found {getattr(self, name)}.")
        for name in ("warm_up", "label_smoothing", "crop", "colour_drop", "channel_drop", "ema_decay"):
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

    def lasting(self, epochs: int) -> TrainConfig:
        """The same training over so many epochs, its schedule stretched or shortened with it."""
        halving = max(1, round(self.halving_epochs * epochs / self.epochs))
        return replace(self, epochs=epochs, halving_epochs=halving)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
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
        colour_drop=0.0,
        channel_drop=0.0,
        mixed_precision=False,
    ),
}


AIRBORNE: dict[str, Any] = {"relief": 0.6}
"""What `modern` is on scans with returns, as `pointcloud.blocks.features.is_airborne` means it (docs/benchmarks/accuracy.md).

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
    """The recipe of this name, for airborne scans, sparse surveys or others, with the fields that are not None changed.

    Raises:
        PointloomError: an unknown recipe, or settings that cannot be.
    """
    if name not in RECIPES:
        raise PointloomError(f"recipe must be one of {', '.join(RECIPES)}, found {name!r}.")
    given = {field: value for field, value in changes.items() if value is not None}
    return replace(RECIPES[name], **suited(name, airborne=airborne, sparse=sparse) | given)


def suited(name: RecipeName, *, airborne: bool, sparse: bool) -> dict[str, Any]:
    """What a recipe has otherwise on such scans: only `modern` has anything."""
    return (AIRBORNE if airborne else {}) | (SPARSE if sparse else {}) if name == "modern" else {}


def fusion_channels(name: RecipeName, *, sparse: bool, width: int) -> int:
    """Of the network that goes with a recipe: width, but on sparse surveys `modern` leaves the fused vector out.

    Of few large blocks it says which one this is: on half of such a tile a network without it was one point of mIoU
    better (docs/benchmarks/accuracy.md).
    """
    return 0 if sparse and name == "modern" else width
