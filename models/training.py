"""The training step and the loop around it, with neither Ray nor Prefect: they wrap what is here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric import seed_everything
from torch_geometric.data import Batch

from models.dataset import network_input
from models.metrics import Scores, confusion
from pointcloud.errors import PointloomError
from pointcloud.labels import IGNORE

_SEED_STRIDE = 1_000_003  # Ray workers' seeds lie close together, and no two epochs of any shall be alike


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained: AdamW, one warm-up and a cosine decay, label smoothing, augmentation.

    Attributes:
        epochs: passes over the training blocks.
        batch_size: blocks in one step, over all Ray workers together.
        learning_rate: its peak, reached after `warm_up` of all steps.
        class_weights: weigh classes by 1 / sqrt(frequency) in the training split.
        clip_norm: gradients are clipped to this norm.
        seed: of weights, order and augmentation.
    """

    epochs: int = 60
    batch_size: int = 4
    learning_rate: float = 4e-3
    warm_up: float = 0.15
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    class_weights: bool = True
    clip_norm: float = 1.0
    augment: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.learning_rate <= 0:
            raise PointloomError("epochs and batch_size must be 1 or more and learning_rate positive.")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def class_weights(class_counts: list[int]) -> torch.Tensor:
    """(C,) weights 1 / sqrt(share of the class), with a mean of 1 over the points; 0 for a class without any.

    Raises:
        PointloomError: fewer than two classes have points, so there is nothing to tell apart.
    """
    counts = torch.tensor(class_counts, dtype=torch.float64)
    if (counts > 0).sum() < 2:
        raise PointloomError(
            f"the training split has labelled points of {int((counts > 0).sum())} class(es), expected two or "
            "more; check the label scheme against the class codes of the scans."
        )
    weights = torch.where(counts > 0, counts.clamp(min=1).rsqrt(), 0.0)
    return (weights * counts.sum() / (weights * counts).sum()).float()


@dataclass
class TrainState:
    """What a training can go on from: network, optimizer, schedule, epochs done, the best weights so far."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    history: list[dict[str, Any]]
    best: dict[str, torch.Tensor]

    def to_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers only, so that `torch.load(weights_only=True)` reads it back."""
        return {
            "network": unwrapped(self.network).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "history": self.history,
            "best": self.best,
        }

    def load(self, record: dict[str, Any]) -> None:
        unwrapped(self.network).load_state_dict(record["network"])
        self.optimizer.load_state_dict(record["optimizer"])
        self.scheduler.load_state_dict(record["scheduler"])
        self.history, self.best = record["history"], record["best"]


def begin(network: nn.Module, config: TrainConfig, steps_per_epoch: int) -> TrainState:
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    total = config.epochs * steps_per_epoch
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=total, pct_start=config.warm_up, cycle_momentum=False
    )
    return TrainState(network, optimizer, scheduler, [], {})


def fit(
    state: TrainState,
    train: Iterable[Batch],
    val: Iterable[Batch],
    config: TrainConfig,
    tile_size_m: float,
    names: tuple[str, ...],
    weights: torch.Tensor | None,
    on_epoch: Callable[[TrainState], None],
) -> None:
    """Train from where `state` stands to the last epoch; after each, `on_epoch` may save what it wants.

    `best` follows the mean IoU on the validation split, never on anything that is later scored as a test.

    Every epoch has random numbers of its own, which follow from torch's seed at the start: a training that is
    resumed under the same seed ends in the same weights as one that was never interrupted.

    Raises:
        PointloomError: the loss is no longer a number.
    """
    seed = torch.initial_seed()
    for epoch in range(len(state.history), config.epochs):
        began = time.monotonic()
        # Python's and numpy's too: PyG's augmentation draws from Python's.
        seed_everything((seed + _SEED_STRIDE * epoch) % 2**32)
        sampler = getattr(train, "sampler", None)
        if sampler is not None and hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        losses = [train_step(state, batch, config, tile_size_m, weights) for batch in train]
        val_loss, scores = validate(state.network, val, tile_size_m, names)
        _check_finite("validation loss", val_loss, epoch)
        state.history.append(
            {
                "epoch": epoch + 1,
                "train_loss": float(np.mean(losses)),
                "val_loss": val_loss,
                "val_miou": scores.miou,
                "learning_rate": state.scheduler.get_last_lr()[0],
                "seconds": time.monotonic() - began,
            }
        )
        if (scores.miou or 0.0) >= max((h["val_miou"] or 0.0) for h in state.history):
            network = unwrapped(state.network)
            state.best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        on_epoch(state)


def train_step(
    state: TrainState, batch: Batch, config: TrainConfig, tile_size_m: float, weights: torch.Tensor | None
) -> float:
    """One optimizer step on one batch of blocks; the loss.

    Raises:
        PointloomError: a loss or gradient that is not a number, before it can spoil the weights.
    """
    state.network.train()
    logits = state.network(network_input(batch, tile_size_m), batch.ptr)
    loss = F.cross_entropy(
        logits, batch.y, weight=weights, ignore_index=IGNORE, label_smoothing=config.label_smoothing
    )
    value = loss.item()
    _check_finite("loss", value, len(state.history))
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), config.clip_norm)
    _check_finite("gradient", norm.item(), len(state.history))
    state.optimizer.step()
    state.scheduler.step()
    return value


def _check_finite(what: str, value: float, epoch: int) -> None:
    if not np.isfinite(value):
        raise PointloomError(
            f"the {what} became {value} in epoch {epoch + 1}; try a smaller learning_rate, and check the "
            "scans for absurd attribute values."
        )


@torch.inference_mode()
def validate(
    network: nn.Module, batches: Iterable[Batch], tile_size_m: float, names: tuple[str, ...]
) -> tuple[float, Scores]:
    """Mean loss per labelled point, and the scores over all of them."""
    network.eval()
    counts = np.zeros((len(names), len(names) + 1), np.int64)
    loss, num_points = 0.0, 0
    for batch in batches:
        logits = network(network_input(batch, tile_size_m), batch.ptr)
        loss += F.cross_entropy(logits, batch.y, ignore_index=IGNORE, reduction="sum").item()
        num_points += int((batch.y != IGNORE).sum())
        counts += confusion(logits.argmax(dim=1), batch.y, len(names))
    return loss / max(num_points, 1), Scores.from_confusion(counts, names)


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside a DistributedDataParallel."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
