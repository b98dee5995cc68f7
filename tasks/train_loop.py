"""What every Ray worker of a training runs, around the loop in `models.training`."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.util.queue import Queue
from torch.utils.data import DataLoader

from models import training
from models.augmentation import Augmentation
from models.dataset import BlockDataset, collate
from models.deepgcn import DeepGCN, DeepGCNConfig
from models.recipes import TrainConfig
from models.training import Diverged, TrainState
from pointcloud import ledger, splits, storage, store
from pointcloud.errors import ScanError, SchemaError
from pointcloud.resplit import SplitBlocks, open_blocks

_STATE_FILE = "state.pt"


@dataclass(frozen=True)
class TrainJob:
    """One training: which blocks, which network, how, and on how many Ray workers.

    `wait_s` is how long a Ray cluster may take until it has room for them, or for `min_workers` of them where the
    training may go on with fewer; with `gpu` each has one. `split_file` names another split of the blocks than
    their own (`pointcloud.resplit`).
    """

    dataset: str
    out: str
    network: DeepGCNConfig
    features: tuple[str, ...]
    training: TrainConfig
    num_workers: int
    cpus_per_worker: int
    wait_s: float
    fresh: bool
    split_file: str = ""
    min_workers: int = 0
    gpu: bool = False

    @property
    def workers_needed(self) -> int:
        return self.min_workers or self.num_workers

    def key(self) -> str:
        """Hash of everything the weights depend on."""
        return ledger.key_of(
            storage.content_hash(storage.join(self.dataset, store.MANIFEST)), self.network.to_dict(),
            self.features, self.training.to_dict(), self.num_workers,
            *([storage.content_hash(self.split_file)] if self.split_file else []),
        )  # fmt: skip

    def blocks(self) -> SplitBlocks:
        """The dataset under this training's split. Raises as `open_blocks`."""
        return open_blocks(self.dataset, self.split_file)


def train_loop(config: dict[str, Any]) -> None:
    """Train from the last epoch kept; epochs, and the sentence of what cannot be tried again, go to the queue.

    Args:
        config: `job`, a TrainJob, and `queue`, a Ray queue that takes {"epoch": record, "confusion": rows} and
            {"stopped": sentence} from the first Ray worker.
    """
    queue: Queue = config["queue"]
    try:
        _train(config["job"], queue)
    except (Diverged, ScanError, SchemaError) as error:
        # All Ray workers get here together. Raised, Ray Train would try again, and end the same way.
        if ray.train.get_context().get_world_rank() == 0:
            queue.put({"stopped": str(error)})


def _train(job: TrainJob, queue: Queue) -> None:
    torch.set_num_threads(job.cpus_per_worker)
    context = ray.train.get_context()
    blocks = job.blocks()
    manifest = blocks.manifest
    train = _loader(job, blocks, splits.TRAIN, context.get_world_size())
    val = _loader(job, blocks, splits.VAL, 1)
    torch.manual_seed(job.training.seed)
    network = ray.train.torch.prepare_model(
        DeepGCN(job.network, gradient_checkpointing=job.training.gradient_checkpointing),
        # `fit` averages batch norm's statistics over the Ray workers; a broadcast would drop all but the first's.
        parallel_strategy_kwargs={"forward_sync_buffers": False},
    )
    state = training.begin(network, job.training, math.ceil(len(train) / job.training.accumulation))
    resumed = ray.train.get_checkpoint()
    if resumed is not None:
        state.load(load_state(resumed))
    # Ray workers draw other augmentations from here on, the same ones in every run.
    torch.manual_seed(job.training.seed + 1 + context.get_world_rank())
    weights = (
        training.class_weights(manifest.class_counts[splits.TRAIN]) if job.training.class_weights else None
    )

    def report(state: TrainState) -> None:
        first = context.get_world_rank() == 0
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = None
            if first:
                torch.save(state.to_dict(), Path(folder) / _STATE_FILE)
                checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(state.history[-1], checkpoint=checkpoint)
        if first:
            assert state.confusion is not None, "an epoch ends with a validation"
            queue.put({"epoch": state.history[-1], "confusion": state.confusion.tolist()})

    training.fit(
        state, train, val, job.training, manifest.block_config.tile_size_m, manifest.label_scheme.names, weights, report
    )  # fmt: skip


def _loader(job: TrainJob, blocks: SplitBlocks, split: str, world_size: int) -> DataLoader[Any]:
    training_split = split == splits.TRAIN
    items = BlockDataset(
        blocks.read(split),
        job.features,
        blocks.manifest.statistics,
        Augmentation.of(job.training, job.features) if training_split else None,
    )
    loader = DataLoader(
        items, job.training.blocks_at_once(world_size), shuffle=training_split, collate_fn=collate
    )
    # Validation is whole on every Ray worker: it is small, and its scores then need no gathering.
    return ray.train.torch.prepare_data_loader(loader) if training_split else loader


def load_state(checkpoint: ray.train.Checkpoint) -> dict[str, Any]:
    """The record of a `TrainState`; nothing in it can run code."""
    with checkpoint.as_directory() as folder:
        return torch.load(Path(folder) / _STATE_FILE, weights_only=True, map_location="cpu")
