"""Blocks dataset to checkpoint: one Prefect task that holds the Ray driver and calls `TorchTrainer`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ray.train
import torch
from prefect import get_run_logger, task
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Queue
from torch.utils.data import DataLoader

from models.checkpoint import RECORD, Checkpoint, read_checkpoint, save_checkpoint
from models.dataset import BlockDataset, collate
from models.deepgcn import DeepGCN
from models.losses import class_weights
from models.metrics import Scores
from models.training import validate
from pointcloud import ledger, splits, storage, store
from pointcloud.drift import seen_in
from pointcloud.errors import PointloomError, SchemaError
from pointcloud.features import FEATURES, STANDARDISED, check_features
from pointcloud.resplit import SplitBlocks
from tasks.capacity import await_room
from tasks.cluster import ray_session, usable_cpus
from tasks.train_loop import TrainJob, load_state, train_loop
from tasks.train_relay import relayed_epochs

__all__ = [
    "TrainJob",
    "check_dataset",
    "check_splits",
    "cpus_of_each",
    "finished_checkpoint",
    "train_network",
]


def check_dataset(dataset: str, features: tuple[str, ...]) -> store.Manifest:
    """The manifest, once its scans are seen to give the features.

    Raises:
        PointloomError: no dataset there; a feature its scans lack.
    """
    check_features(features)
    manifest = store.read_manifest(dataset)
    # An attribute that only scans outside the training split have cannot be standardised.
    given = set(manifest.attributes) - (set(STANDARDISED) - manifest.statistics.mean.keys())
    missing = [a for f in features for a in FEATURES[f][0] if a not in given]
    if missing:
        raise PointloomError(
            f"the scans of dataset {dataset!r} have no {', '.join(missing)}, which the features "
            f"{', '.join(features)} need; leave the feature out."
        )
    return manifest


def check_splits(blocks: SplitBlocks) -> None:
    """Raises PointloomError where there is nothing to train or to validate on."""
    class_weights(blocks.manifest.class_counts.get(splits.TRAIN, [0]))
    if not sum(blocks.manifest.class_counts.get(splits.VAL, [0])):
        raise PointloomError(
            f"dataset {blocks.dataset!r} has no labelled validation block; name val_scans, or use a larger "
            "val_fraction or smaller tiles in the preprocess flow."
        )


def cpus_of_each(num_workers: int, cpus_per_worker: int) -> int:
    """CPUs of each of so many Ray workers at once; 0 shares out what this machine has."""
    return cpus_per_worker or max(1, usable_cpus() // num_workers)


@task(name="train network")
def train_network(job: TrainJob) -> dict[str, Any]:
    """Train, and write the checkpoint of the epoch with the best validation; its metrics.

    A finished training with the same key is not done again; an unfinished one goes on from its last epoch. The
    test split is looked at once, when the best epoch is chosen: its scores are the metrics' "test".

    Raises:
        PointloomError: the dataset or the settings do not fit, or the training fails.
    """
    logger = get_run_logger()
    key = job.key()
    finished = None if job.fresh else finished_checkpoint(job)
    if finished is not None:
        logger.info("checkpoint %s: already trained with these settings, kept", job.out)
        return finished.metrics
    manifest = job.blocks().manifest
    parameters = sum(p.numel() for p in DeepGCN(job.network).parameters())
    logger.info(
        "%d layers, %s parameters, %d training blocks, %d epochs, %d Ray worker(s) with %d CPU(s)",
        job.network.num_layers, f"{parameters:,}", manifest.num_blocks(splits.TRAIN), job.training.epochs,
        job.num_workers, job.cpus_per_worker,
    )  # fmt: skip
    name = f"{key}-{ledger.key_of(torch.rand(()).item())[:8]}" if job.fresh else key
    stopped: list[str] = []
    with (
        ray_session(job.num_workers * job.cpus_per_worker),
        relayed_epochs(job, name, manifest.label_scheme.names, logger, stopped) as queue,
    ):
        await_room(job.workers_needed, {"CPU": job.cpus_per_worker, "GPU": int(job.gpu)}, job.wait_s)
        trainer = _trainer(job, name, queue)
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _cause(error) from error
        state = None if result.checkpoint is None else load_state(result.checkpoint)
    if stopped:
        if state is not None and keep_best_before(job, manifest, state, stopped[0]):
            logger.warning("checkpoint %s: the best of the %d epochs before", job.out, len(state["history"]))
        raise PointloomError(stopped[0])
    assert state is not None, "an epoch ends with a checkpoint"
    checkpoint = _checkpoint(job, manifest, state, {"key": key})
    metrics = checkpoint.metrics
    if sum(manifest.class_counts.get(splits.TEST, [0])):
        metrics["test"] = _test_scores(job, checkpoint)
        logger.info("test split: mIoU %.3f on the points of its blocks", metrics["test"]["miou"] or 0.0)
    # So that segmenting can tell what is unlike the training.
    seen = seen_in(job.blocks().read(splits.TRAIN), manifest.block_config.tile_size_m, job.dataset)
    save_checkpoint(job.out, replace(checkpoint, seen=seen))
    logger.info(
        "checkpoint %s: validation mIoU %.3f in epoch %d",
        job.out,
        metrics["val_miou"] or 0.0,
        metrics["epoch"],
    )
    return metrics


def _trainer(job: TrainJob, name: str, queue: Queue) -> TorchTrainer:
    """Ray Train's part: which Ray workers, where their epochs are kept, how often a lost one is replaced."""
    return TorchTrainer(
        train_loop,
        train_loop_config={"job": job, "queue": queue},
        torch_config=TorchConfig(backend="nccl" if job.gpu else "gloo"),
        scaling_config=ScalingConfig(
            # A range is elastic: the training goes on with the Ray workers that a lost node leaves.
            # (Its type is Tune's, which knows no pair; Ray Train does.)
            num_workers=(job.min_workers, job.num_workers) if job.min_workers else job.num_workers,  # type: ignore[arg-type]
            use_gpu=job.gpu,
            resources_per_worker={"CPU": job.cpus_per_worker, **({"GPU": 1} if job.gpu else {})},
        ),
        run_config=RunConfig(
            name=name,
            storage_path=_ray_path(storage.join(job.out, "runs")),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            # Ray Train owns the retry: a lost Ray worker costs at most the epoch it was in.
            failure_config=FailureConfig(max_failures=2),
        ),
    )


def _checkpoint(
    job: TrainJob, manifest: store.Manifest, state: dict[str, Any], provenance: dict[str, Any]
) -> Checkpoint:
    """The best epoch of a training."""
    best = max(state["history"], key=lambda epoch: (epoch["val_miou"] or 0.0, epoch["epoch"]))
    return Checkpoint(
        network=job.network,
        state=state["best"],
        block_config=manifest.block_config,
        label_scheme=manifest.label_scheme,
        features=job.features,
        statistics=manifest.statistics,
        metrics={"val_miou": best["val_miou"], "epoch": best["epoch"]},
        history=state["history"],
        provenance=provenance
        | {
            "dataset": job.dataset,
            "split_rule": manifest.split_rule,
            "training": job.training.to_dict(),
            "torch": torch.__version__,
        },
    )


def keep_best_before(job: TrainJob, manifest: store.Manifest, state: dict[str, Any], why: str) -> bool:
    """Write the best epoch of a training that went wrong, unless a checkpoint is there, which may be better.

    It counts as unfinished; its provenance says `why` it stopped.
    """
    if storage.exists(storage.join(job.out, RECORD)):
        return False
    save_checkpoint(job.out, _checkpoint(job, manifest, state, {"stopped": why}))
    return True


def _test_scores(job: TrainJob, checkpoint: Checkpoint) -> dict[str, Any]:
    """The confusion of the test split, and its scores as `Scores.to_dict` gives them."""
    blocks = job.blocks()
    items = BlockDataset(blocks.read(splits.TEST), job.features, checkpoint.statistics)
    names = checkpoint.label_scheme.names
    loader = DataLoader(items, 1, collate_fn=collate)
    counts = validate(checkpoint.build_network(), loader, checkpoint.block_config.tile_size_m, len(names))[1]
    return {"confusion": counts.tolist(), **Scores.from_confusion(counts, names).to_dict()}


def finished_checkpoint(job: TrainJob) -> Checkpoint | None:
    """The record of the checkpoint that this very training has written, without weights; None before."""
    try:
        checkpoint = read_checkpoint(job.out, weights=False)
    except SchemaError:
        return None
    return checkpoint if checkpoint.provenance.get("key") == job.key() else None


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
