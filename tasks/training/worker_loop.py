"""What every Ray worker of a training runs, around the loop in `models.training.loop`."""

from __future__ import annotations

import logging
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.util.queue import Queue
from torch.utils.data import DataLoader

from models.data.augmentation import Augmentation
from models.data.dataset import BlockDataset, batches, num_loaders
from models.data.sampling import DealtBatches
from models.network.deepgcn import DeepGCN
from models.training import distributed, loop
from models.training.loop import TrainState
from models.training.losses import class_weights, sets_of
from pointcloud.dataset import splits
from pointcloud.dataset.resplit import SplitBlocks
from pointcloud.errors import PointloomError
from pointcloud.storage.lock import Lock, LockLostError
from tasks.training.epochs_kept import TrainRun, read_state
from tasks.training.failures import Stopped, failures_to
from tasks.training.job import TrainJob
from tasks.training.result import publish_unfinished
from tasks.training.worker_logs import logs_to

_BEAT_SECONDS = 5.0
_LOG = logging.getLogger(__name__)


def train_loop(config: dict[str, Any]) -> None:
    """Train from the newest epoch kept; epochs, log lines and signs of life go to the queue.

    Args:
        config: `job`, a TrainJob; `run`, a TrainRun; `lock`, the Lock on the checkpoint's folder, or None; and `queue`,
            a Ray queue that takes {"history": records, "confusion": rows} and {"alive": True} from the first Ray
            worker, {"log": (rank, level, text)} and {"failure": Failure} from all.

    Raises:
        Exception: whatever ended this Ray worker, after the queue was told; Ray Train then ends the others.
    """
    queue: Queue = config["queue"]
    rank = ray.train.get_context().get_world_rank()
    with _alive(queue, rank), logs_to(queue, rank), failures_to(queue):
        _train(config["job"], config["run"], queue, config["lock"])


@contextmanager
def _alive(queue: Queue, rank: int) -> Iterator[None]:
    """While the `with` body runs, the first Ray worker sends a sign of life every few seconds."""
    queue.put({"alive": True})
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT_SECONDS):
            queue.put({"alive": True})

    thread = threading.Thread(target=beat, name="sign of life", daemon=True)
    if rank == 0:
        thread.start()
    try:
        yield
    finally:
        ended.set()


def _train(job: TrainJob, run: TrainRun, queue: Queue, lock: Lock | None) -> None:
    if not run.is_shared():
        raise Stopped(
            f"the Ray worker on {socket.gethostname()} does not see the folder {job.out!r}; use one that all nodes of "
            "the Ray cluster share, or a bucket."
        )
    torch.set_num_threads(job.cpus_per_worker)
    context = ray.train.get_context()
    rank, num_workers = context.get_world_rank(), context.get_world_size()
    blocks = job.blocks()
    manifest = blocks.manifest
    train, val = _train_loader(job, blocks, rank, num_workers), _val_loader(job, blocks)
    _LOG.info(
        "Ray worker %d of %d, on %s: %d micro-batches an epoch, %d validation blocks",
        rank + 1, num_workers, socket.gethostname(), len(train), len(val.dataset),  # type: ignore[arg-type]
    )  # fmt: skip
    torch.manual_seed(job.training.seed)
    network = ray.train.torch.prepare_model(
        DeepGCN(job.network, gradient_checkpointing=job.training.gradient_checkpointing),
        # `fit` averages batch norm's statistics over the Ray workers; a broadcast would drop all but the first's.
        parallel_strategy_kwargs={"forward_sync_buffers": False},
    )
    state = loop.begin(network, job.training, math.ceil(len(train) / job.training.accumulation))
    # The first decides for all: a Ray worker of a lost node may still write an epoch while the others look.
    newest = distributed.from_first_worker(run.newest() if rank == 0 else None)
    if newest is not None:
        state.load(read_state(newest))
    # Ray workers draw other augmentations from here on, the same ones in every run.
    torch.manual_seed(job.training.seed + 1 + rank)
    weights = class_weights(manifest.class_counts[splits.TRAIN]) if job.training.class_weights else None

    def report(state: TrainState) -> None:
        if rank == 0:
            _check(lock)
            run.keep(state.to_dict())
        # All Ray workers wait here for the first: an epoch that they report has been kept.
        ray.train.report(state.history[-1])
        if rank == 0:
            publish_unfinished(job, manifest, state.to_dict())
            assert state.confusion is not None, "an epoch ends with a validation"
            queue.put({"history": state.history, "confusion": state.confusion.tolist()})

    scheme = manifest.label_scheme
    loop.fit(
        state, train, val, job.training, manifest.block_config.tile_size_m, scheme.names, weights, report,
        sets_of(scheme),
    )  # fmt: skip


def _check(lock: Lock | None) -> None:
    """Raises Stopped where the lock was lost: another run may be writing the same epochs."""
    try:
        if lock is not None:
            lock.check()
    except LockLostError as error:
        raise Stopped(str(error)) from None


def _train_loader(job: TrainJob, blocks: SplitBlocks, rank: int, num_workers: int) -> DataLoader[Any]:
    items = BlockDataset(
        blocks.read(splits.TRAIN),
        job.features,
        blocks.manifest.statistics,
        Augmentation.of(job.training, job.features, blocks.manifest.block_config),
        job.training.seed,
    )
    try:
        dealt = DealtBatches(
            len(items),
            job.training.batch_size,
            job.training.accumulation,
            job.training.seed,
            rank,
            num_workers,
        )
    except PointloomError as error:
        raise Stopped(str(error)) from None
    return batches(items, num_loaders(job.cpus_per_worker, job.gpu), batch_sampler=dealt)


def _val_loader(job: TrainJob, blocks: SplitBlocks) -> DataLoader[Any]:
    """Validation is whole on every Ray worker: it is small, and its scores then need no gathering."""
    items = BlockDataset(blocks.read(splits.VAL), job.features, blocks.manifest.statistics)
    return batches(items, 0, batch_size=job.training.blocks_at_once(1))
