"""Blocks dataset to checkpoint: one Prefect task that holds the Ray driver."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prefect import get_run_logger, task

from models.familiarity import learn_familiarity, some
from models.network.deepgcn import DeepGCN
from models.training.losses import class_weights
from models.weights.checkpoint import save_checkpoint
from pointcloud.blocks.features import FEATURES, STANDARDISED, check_features, default_features
from pointcloud.dataset import splits, store
from pointcloud.dataset.resplit import SplitBlocks
from pointcloud.errors import PointloomError
from pointcloud.quality.drift import seen_in
from pointcloud.storage.lock import Lock
from tasks.runtime.cluster import await_room, ray_session
from tasks.runtime.cpus import usable_cpus
from tasks.training.epochs_kept import TrainRun, finish, forget_fresh, read_state, run_of
from tasks.training.failures import Stopped
from tasks.training.fit import fit_to_end
from tasks.training.job import TrainJob
from tasks.training.relay import relayed
from tasks.training.result import checkpoint_of, finished_checkpoint, keep_best_before, test_scores


def check_dataset(dataset: str, features: tuple[str, ...]) -> tuple[store.Manifest, tuple[str, ...]]:
    """The manifest, and the features, which its scans can give; without any, those that suit the dataset.

    Raises:
        PointloomError: no dataset there; a feature its scans lack.
    """
    if features:
        check_features(features)
    manifest = store.read_manifest(dataset)
    # An attribute that only scans outside the training split have cannot be standardised.
    given = set(manifest.attributes) - (set(STANDARDISED) - manifest.statistics.mean.keys())
    features = features or default_features(manifest.block_config, given)
    missing = [a for f in features for a in FEATURES[f][0] if a not in given]
    if missing:
        raise PointloomError(
            f"the scans of dataset {dataset!r} have no {', '.join(missing)}, which the features "
            f"{', '.join(features)} need; leave the feature out."
        )
    return manifest, features


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
def train_network(job: TrainJob, lock: Lock | None = None) -> dict[str, Any]:
    """Train, and write the checkpoint of the epoch with the best validation; its metrics.

    A finished training with the same key is not done again; an unfinished one goes on from its last epoch. The
    test split is looked at once, when the best epoch is chosen: its scores are the metrics' "test".

    Args:
        job: what is trained, and how.
        lock: the lock on the folder that the checkpoint lies in; without it nothing more is written there.

    Raises:
        PointloomError: the dataset or the settings do not fit, the training fails, or the lock was lost.
    """
    logger = get_run_logger()
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
    run = run_of(job.out, job.key(), job.fresh)
    try:
        with (
            ray_session(job.num_workers * job.cpus_per_worker),
            relayed(job, run, manifest.label_scheme.names, logger) as relay,
        ):
            await_room(job.workers_needed, {"CPU": job.cpus_per_worker, "GPU": int(job.gpu)}, job.wait_s)
            fit_to_end(job, run, relay, logger, lock)
    except Stopped as error:
        if lock is not None:
            lock.check()
        forget_fresh(job.out)
        last = run.newest()
        if last is not None and keep_best_before(job, manifest, read_state(last), str(error)):
            logger.warning("checkpoint %s: the best of the %d epochs before", job.out, run.epochs_done())
        raise PointloomError(str(error)) from None
    return _publish(job, run, manifest, lock, logger)


def _publish(
    job: TrainJob, run: TrainRun, manifest: store.Manifest, lock: Lock | None, logger: Any
) -> dict[str, Any]:
    """Write the checkpoint of a training that has reached its last epoch; its metrics.

    Raises:
        PointloomError: epochs are missing, or the lock was lost.
    """
    last, done = run.newest(), run.epochs_done()
    if last is None or done != job.training.epochs:
        raise PointloomError(
            f"the training of {job.out!r} ended after epoch {done} of {job.training.epochs}; run it again, it goes on "
            "from there."
        )
    checkpoint = checkpoint_of(job, manifest, read_state(last), {"key": job.key()})
    metrics = checkpoint.metrics
    if sum(manifest.class_counts.get(splits.TEST, [0])):
        metrics["test"] = test_scores(job, checkpoint)
        logger.info("test split: mIoU %.3f on the points of its blocks", metrics["test"]["miou"] or 0.0)
    # So that segmenting can tell what is unlike the training.
    seen = seen_in(job.blocks().read(splits.TRAIN), manifest.block_config.tile_size_m, job.dataset)
    num_blocks = manifest.num_blocks(splits.TRAIN)
    checkpoint = learn_familiarity(checkpoint, some(job.blocks().read(splits.TRAIN), num_blocks))
    if lock is not None:
        lock.check()
    save_checkpoint(job.out, replace(checkpoint, seen=seen))
    finish(run)
    val_miou = metrics["val_miou"] or 0.0
    logger.info("checkpoint %s: validation mIoU %.3f in epoch %d", job.out, val_miou, metrics["epoch"])
    return metrics
