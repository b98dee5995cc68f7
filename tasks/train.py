"""Blocks dataset to checkpoint: one Prefect task that holds the Ray driver and calls `TorchTrainer`."""

from __future__ import annotations

import contextvars
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from prefect import get_run_logger, task
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Empty, Queue
from torch.utils.data import DataLoader

from models import training
from models.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from models.dataset import BlockDataset, collate
from models.deepgcn import DeepGCN, DeepGCNConfig
from models.training import TrainConfig, TrainState
from pointcloud import ledger, splits, storage, store
from pointcloud.errors import PointloomError, SchemaError
from pointcloud.features import FEATURES, check_features
from tasks.cluster import ray_session, usable_cpus
from tasks.watching import Progress

_STATE_FILE = "state.pt"
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class TrainJob:
    """One training: which blocks, which network, how, and on how many Ray workers."""

    dataset: str
    out: str
    network: DeepGCNConfig
    features: tuple[str, ...]
    training: TrainConfig
    num_workers: int
    cpus_per_worker: int
    fresh: bool

    def key(self) -> str:
        """Hash of everything the weights depend on."""
        return ledger.key_of(
            storage.content_hash(storage.join(self.dataset, store.MANIFEST)), self.network.to_dict(),
            self.features, self.training.to_dict(), self.num_workers,
        )  # fmt: skip


def plan_training(
    dataset: str, features: tuple[str, ...], num_workers: int, cpus_per_worker: int
) -> tuple[store.Manifest, int]:
    """The manifest and the CPUs of each Ray worker (0 shares out what there is), once all fits together.

    Raises:
        PointloomError: no dataset there; a feature its scans lack; nothing to train or to validate on.
    """
    check_features(features)
    manifest = store.read_manifest(dataset)
    missing = [a for f in features for a in FEATURES[f][0] if a not in manifest.attributes]
    if missing:
        raise PointloomError(
            f"the scans of dataset {dataset!r} have no {', '.join(missing)}, which the features "
            f"{', '.join(features)} need; leave the feature out."
        )
    training.class_weights(manifest.class_counts.get(splits.TRAIN, [0]))
    if not sum(manifest.class_counts.get(splits.VAL, [0])):
        raise PointloomError(
            f"dataset {dataset!r} has no labelled validation block; name val_scans, or use a larger val_fraction or "
            "smaller tiles in the preprocess flow."
        )
    return manifest, cpus_per_worker or max(1, usable_cpus() // num_workers)


@task(name="train network")
def train_network(job: TrainJob) -> dict[str, Any]:
    """Train, and write the checkpoint of the epoch with the best validation; its metrics.

    A finished training with the same key is not done again; an unfinished one goes on from its last epoch.

    Raises:
        PointloomError: the dataset or the settings do not fit, or the training fails.
    """
    logger = get_run_logger()
    key = job.key()
    finished = None if job.fresh else _finished(job.out, key)
    if finished is not None:
        logger.info("checkpoint %s: already trained with these settings, kept", job.out)
        return finished.metrics
    manifest = store.read_manifest(job.dataset)
    parameters = sum(p.numel() for p in DeepGCN(job.network).parameters())
    logger.info(
        "%d layers, %s parameters, %d training blocks, %d epochs, %d Ray worker(s) with %d CPU(s)",
        job.network.num_layers, f"{parameters:,}", manifest.num_blocks(splits.TRAIN), job.training.epochs,
        job.num_workers, job.cpus_per_worker,
    )  # fmt: skip
    runs = storage.join(job.out, "runs")
    name = f"{key}-{ledger.key_of(torch.rand(()).item())[:8]}" if job.fresh else key
    with ray_session(job.num_workers * job.cpus_per_worker), _relayed_epochs(job, logger) as queue:
        trainer = TorchTrainer(
            train_loop,
            train_loop_config={"job": job, "queue": queue},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(
                num_workers=job.num_workers, resources_per_worker={"CPU": job.cpus_per_worker}
            ),
            run_config=RunConfig(
                name=name,
                storage_path=_ray_path(runs),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
                # Ray Train owns the retry: a lost Ray worker costs at most the epoch it was in.
                failure_config=FailureConfig(max_failures=2),
            ),
        )
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _cause(error) from error
        assert result.checkpoint is not None, "an epoch ends with a checkpoint"
        state = _load_state(result.checkpoint)
    best = max(state["history"], key=lambda epoch: (epoch["val_miou"] or 0.0, epoch["epoch"]))
    checkpoint = Checkpoint(
        network=job.network,
        state=state["best"],
        block_config=manifest.block_config,
        label_scheme=manifest.label_scheme,
        features=job.features,
        statistics=manifest.statistics,
        metrics={"val_miou": best["val_miou"], "epoch": best["epoch"]},
        history=state["history"],
        provenance={
            "key": key,
            "dataset": job.dataset,
            "training": job.training.to_dict(),
            "torch": torch.__version__,
        },
    )
    save_checkpoint(job.out, checkpoint)
    logger.info(
        "checkpoint %s: validation mIoU %.3f in epoch %d", job.out, best["val_miou"] or 0.0, best["epoch"]
    )
    return checkpoint.metrics


def _finished(out: str, key: str) -> Checkpoint | None:
    try:
        checkpoint = read_checkpoint(out, weights=False)
    except SchemaError:
        return None
    return checkpoint if checkpoint.provenance.get("key") == key else None


def _ray_path(uri: str) -> str:
    return storage.resolve(uri)[1] if storage.is_local(uri) else uri


def _cause(error: ray.train.TrainingFailedError) -> Exception:
    """What a Ray worker raised, when it is a sentence for the user."""
    failures = getattr(error, "worker_failures", {})
    for failure in failures.values():
        cause = getattr(failure, "cause", failure)
        if isinstance(cause, PointloomError):
            return cause
    return error


@contextmanager
def _relayed_epochs(job: TrainJob, logger: Any) -> Iterator[Queue]:
    """A Ray queue whose epoch records become log lines and a progress bar of this task run.

    The Ray workers need no way to Prefect then.
    """
    queue = Queue(actor_options={"num_cpus": 0})
    progress = Progress(f"training-{job.key()}", f"Epochs of {job.out}", job.training.epochs)
    ended = threading.Event()

    def relay() -> None:
        while not ended.is_set() or not queue.empty():
            try:
                epoch = queue.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            left = epoch["seconds"] * (job.training.epochs - epoch["epoch"])
            logger.info(
                "epoch %d/%d: loss %.3f, validation mIoU %.3f, about %.0f s left",
                epoch["epoch"], job.training.epochs, epoch["train_loss"], epoch["val_miou"] or 0.0, left,
            )  # fmt: skip
            progress.step(epoch["epoch"])

    # The run's context goes along, so that the artifact belongs to this task run.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(relay,), daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        ended.set()
        thread.join(timeout=30)
        queue.shutdown(force=True)


def train_loop(config: dict[str, Any]) -> None:
    """What every Ray worker runs."""
    job: TrainJob = config["job"]
    torch.set_num_threads(job.cpus_per_worker)
    context = ray.train.get_context()
    manifest = store.read_manifest(job.dataset)
    torch.manual_seed(job.training.seed)
    network = ray.train.torch.prepare_model(DeepGCN(job.network))
    train = _loader(job, manifest, splits.TRAIN, context.get_world_size())
    val = _loader(job, manifest, splits.VAL, 1)
    state = training.begin(network, job.training, len(train))
    resumed = ray.train.get_checkpoint()
    if resumed is not None:
        state.load(_load_state(resumed))
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
            config["queue"].put(state.history[-1])

    training.fit(
        state, train, val, job.training, manifest.block_config.tile_size_m, manifest.label_scheme.names, weights, report
    )  # fmt: skip


def _loader(job: TrainJob, manifest: store.Manifest, split: str, world_size: int) -> DataLoader[Any]:
    training_split = split == splits.TRAIN
    blocks = BlockDataset(
        store.read_blocks(job.dataset, manifest, split),
        job.features,
        manifest.statistics,
        augment=training_split and job.training.augment,
    )
    batch_size = max(1, job.training.batch_size // world_size)
    loader = DataLoader(blocks, batch_size, shuffle=training_split, collate_fn=collate)
    # Validation is whole on every Ray worker: it is small, and its scores then need no gathering.
    return ray.train.torch.prepare_data_loader(loader) if training_split else loader


def _load_state(checkpoint: ray.train.Checkpoint) -> dict[str, Any]:
    with checkpoint.as_directory() as folder:
        return torch.load(Path(folder) / _STATE_FILE, weights_only=True, map_location="cpu")
