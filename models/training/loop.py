"""The training step and the loop around it, without Ray and Prefect.

With several workers (`torch.distributed`, a DistributedDataParallel network without buffer broadcasts) a step's
gradient is that of one worker which takes the same blocks in as many micro-batches (`TrainConfig.accumulation`): the
loss is a mean over the labelled points of all of them, and batch norm normalises what goes through the network
together, a micro-batch of one worker. It is not that of one worker which takes them at once, since batch norm then sees
more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch_geometric.data import Batch

from models.data.dataset import Batches
from models.data.stacked import network_input
from models.metrics import Scores, confusion
from models.recipes import TrainConfig
from models.training import distributed
from models.training.divergence import diverging_blocks
from models.training.errors import Diverged
from models.training.losses import loss_of, point_weight
from pointcloud.labels import IGNORE

_SEED_STRIDE = (
    1_000_003  # Ray workers' seeds lie close together, and no two epochs of any worker may be alike
)


@dataclass
class TrainState:
    """The state of a training, from which it can continue.

    Attributes:
        network: the network that is trained, perhaps inside a DistributedDataParallel.
        optimizer, scheduler: a step of each per training step.
        average: the moving average of the weights and of batch norm's statistics; None without `ema_decay`.
        history: one record per epoch done.
        best: weights of the epoch with the best validation.
        confusion: (C, C + 1) counts of the last validation; not kept.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    average: AveragedModel | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    confusion: np.ndarray | None = None

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and whose weights are kept: the average where there is one."""
        return unwrapped(self.network) if self.average is None else self.average.module

    def to_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers only, so that `torch.load(weights_only=True)` reads it back."""
        return {
            "network": unwrapped(self.network).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "history": self.history,
            "best": self.best,
        }

    def load(self, record: dict[str, Any]) -> None:
        """Take over the state of an epoch that was kept."""
        unwrapped(self.network).load_state_dict(record["network"])
        self.optimizer.load_state_dict(record["optimizer"])
        self.scheduler.load_state_dict(record["scheduler"])
        if self.average is not None:
            self.average.load_state_dict(record["average"])
        self.history, self.best = record["history"], record["best"]


def begin(network: nn.Module, config: TrainConfig, steps_per_epoch: int) -> TrainState:
    """A training that has not taken a step; `steps_per_epoch` are optimizer steps."""
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    optimizer = kind(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    scheduler: LRScheduler
    if config.schedule == "halving":
        steps = config.halving_epochs * steps_per_epoch
        scheduler = LambdaLR(optimizer, lambda step: 0.5 ** (step // steps))
    else:
        total = config.epochs * steps_per_epoch
        scheduler = OneCycleLR(
            optimizer, config.learning_rate, total_steps=total, pct_start=config.warm_up, cycle_momentum=False
        )
    average = None
    if config.ema_decay:
        # Batch norm's statistics are averaged too: those of the last step belong to other weights.
        update = get_ema_multi_avg_fn(config.ema_decay)
        average = AveragedModel(unwrapped(network), multi_avg_fn=update, use_buffers=True)
    return TrainState(network, optimizer, scheduler, average)


def fit(
    state: TrainState,
    train: Iterable[Batch],
    val: Iterable[Batch],
    config: TrainConfig,
    tile_size_m: float,
    names: tuple[str, ...],
    weights: torch.Tensor | None,
    on_epoch: Callable[[TrainState], None],
    sets: torch.Tensor | None = None,
) -> None:
    """Train from where `state` stands to the last epoch; after each, `on_epoch` may save the state.

    `best` follows the mean IoU on the validation split, never on anything that is later scored as a test.

    Every epoch has random numbers of its own, which follow from torch's seed at the start: a training that is
    resumed under the same seed ends in the same weights as one that was never interrupted.

    Args:
        state: where the training stands.
        train: micro-batches: `config.accumulation` of them make a step.
        val: batches of the validation split.
        config: how it is trained.
        tile_size_m: the blocks' tile size.
        names: of the C classes.
        weights: (C,) of the classes in the loss.
        on_epoch: called after every epoch.
        sets: (S, C) bool, of classes that one label allows (`losses.sets_of`).

    Raises:
        Diverged: the loss became NaN or infinite.
    """
    seed = torch.initial_seed()
    for epoch in range(len(state.history), config.epochs):
        began = time.monotonic()
        torch.manual_seed((seed + _SEED_STRIDE * epoch) % 2**32)
        if isinstance(train, Batches):
            train.set_epoch(epoch)
        losses = [
            train_step(state, micro_batches, config, tile_size_m, weights, sets)
            for micro_batches in _grouped(train, config.accumulation)
        ]
        distributed.average_buffers(unwrapped(state.network))
        if state.average is not None:
            distributed.average_buffers(state.average.module)
        val_loss, state.confusion = validate(state.evaluated, val, tile_size_m, len(names))
        if not math.isfinite(val_loss):
            raise Diverged("validation loss", val_loss, epoch, ())
        scores = Scores.from_confusion(state.confusion, names)
        _end_epoch(state, float(np.mean(losses)), val_loss, scores, time.monotonic() - began)
        on_epoch(state)


def _end_epoch(state: TrainState, train_loss: float, val_loss: float, scores: Scores, seconds: float) -> None:
    """Add an epoch to the history, and keep its weights where no epoch before it has a higher mIoU."""
    state.history.append(
        {
            "epoch": len(state.history) + 1,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "val_miou": scores.miou,
            "val_iou": list(scores.iou),
            "learning_rate": state.scheduler.get_last_lr()[0],
            "seconds": seconds,
        }
    )
    if (scores.miou or 0.0) >= max((epoch["val_miou"] or 0.0) for epoch in state.history):
        weights_now = state.evaluated.state_dict()
        state.best = {name: tensor.detach().clone() for name, tensor in weights_now.items()}


def train_step(
    state: TrainState,
    micro_batches: Sequence[Batch],
    config: TrainConfig,
    tile_size_m: float,
    weights: torch.Tensor | None,
    sets: torch.Tensor | None = None,
) -> float:
    """One optimizer step; the loss, a mean over the labelled points of all micro-batches of all workers.

    Args:
        state: its network, optimizer, schedule and average go a step on.
        micro_batches: blocks that go through the network together; as many micro-batches on every worker.
        config: the loss and how gradients are treated.
        tile_size_m: the blocks' tile size.
        weights: (C,) of the classes in the loss, None for equal ones.
        sets: (S, C) bool, of classes that one label allows.

    Raises:
        Diverged: a loss or gradient that is NaN or infinite, before it can spoil the weights.
    """
    network, epoch = state.network, len(state.history)
    network.train()
    device = next(network.parameters()).device
    micro_batches = [batch.to(device) for batch in micro_batches]
    weights = None if weights is None else weights.to(device)
    sets = None if sets is None else sets.to(device)
    point_weights = [point_weight(batch.y, weights, sets) for batch in micro_batches]
    total_weight = distributed.sum_over_workers(torch.stack(point_weights).sum())
    state.optimizer.zero_grad(set_to_none=True)
    value = 0.0
    for n, batch in enumerate(micro_batches):
        share = (point_weights[n] / total_weight).item()
        with nullcontext() if n == len(micro_batches) - 1 else _no_sync(network):
            with torch.autocast(
                "cuda", torch.bfloat16, enabled=config.mixed_precision and device.type == "cuda"
            ):
                logits = network(network_input(batch, tile_size_m), batch.ptr)
            loss = loss_of(logits.float(), batch.y, config, weights, sets) * share
            # Every worker's: all of them stop together.
            value += distributed.sum_over_workers(loss.detach()).item()
            if not math.isfinite(value):

                def loss_alone(block: Batch) -> torch.Tensor:
                    logits = unwrapped(network)(network_input(block, tile_size_m), block.ptr)
                    return loss_of(logits, block.y, config, weights, sets)

                raise Diverged("loss", value, epoch, diverging_blocks(batch, loss_alone))
            # DistributedDataParallel takes the mean over the workers where the sum is wanted.
            (loss * distributed.num_workers()).backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm or math.inf).item()
    if not math.isfinite(norm):
        names = distributed.gather_names(tuple(name for batch in micro_batches for name in batch.name))
        raise Diverged("gradient", norm, epoch, names)
    state.optimizer.step()
    state.scheduler.step()
    if state.average is not None:
        state.average.update_parameters(unwrapped(network))
    return value


def _grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of `size` batches, the last perhaps shorter."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _no_sync(network: nn.Module) -> AbstractContextManager[None]:
    """Gradients stay with this worker until the last micro-batch of a step."""
    return network.no_sync() if isinstance(network, nn.parallel.DistributedDataParallel) else nullcontext()


@torch.inference_mode()
def validate(
    network: nn.Module, batches: Iterable[Batch], tile_size_m: float, num_classes: int
) -> tuple[float, np.ndarray]:
    """Mean cross-entropy per point of a known class, and the (C, C + 1) confusion of all of them."""
    network.eval()
    device = next(network.parameters()).device
    counts = np.zeros((num_classes, num_classes + 1), np.int64)
    loss, num_points = 0.0, 0
    for on_host in batches:
        batch = on_host.to(device)
        logits = network(network_input(batch, tile_size_m), batch.ptr)
        truth = batch.y.clamp(min=IGNORE)  # what may be of several classes is not scored
        loss += F.cross_entropy(logits, truth, ignore_index=IGNORE, reduction="sum").item()
        num_points += int((truth != IGNORE).sum())
        counts += confusion(logits.argmax(dim=1), truth, num_classes)
    return loss / max(num_points, 1), counts


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside a DistributedDataParallel."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
