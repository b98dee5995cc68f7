"""From the state of a training to a checkpoint: while it runs, when it is stopped, and at its end."""

from __future__ import annotations

from typing import Any

import torch

from models.data.dataset import BlockDataset, batches
from models.metrics import Scores
from models.training.loop import validate
from models.weights.checkpoint import RECORD, Checkpoint, read_checkpoint, save_checkpoint
from pointcloud.dataset import splits, store
from pointcloud.errors import SchemaError
from pointcloud.storage import files
from tasks.training.job import TrainJob


def checkpoint_of(
    job: TrainJob, manifest: store.Manifest, state: dict[str, Any], provenance: dict[str, Any]
) -> Checkpoint:
    """The best epoch of a training."""
    best = _best(state)
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


def _best(state: dict[str, Any]) -> dict[str, Any]:
    best: dict[str, Any] = max(state["history"], key=lambda epoch: (epoch["val_miou"] or 0.0, epoch["epoch"]))
    return best


def publish_unfinished(job: TrainJob, manifest: store.Manifest, state: dict[str, Any]) -> bool:
    """Write the checkpoint of an epoch that is better than those before it, so that it can be used meanwhile.

    It counts as unfinished. A finished checkpoint that is there, of other settings, stays until the end.
    """
    if _best(state) is not state["history"][-1] or not _may_replace(job.out):
        return False
    save_checkpoint(job.out, checkpoint_of(job, manifest, state, {"unfinished": job.key()}))
    return True


def keep_best_before(job: TrainJob, manifest: store.Manifest, state: dict[str, Any], why: str) -> bool:
    """Write the best epoch of a training that went wrong, unless a checkpoint is there, which may be better.

    It counts as unfinished; its provenance says `why` it stopped.
    """
    if not _may_replace(job.out):
        return False
    save_checkpoint(job.out, checkpoint_of(job, manifest, state, {"stopped": why}))
    return True


def _may_replace(out: str) -> bool:
    if not files.exists(files.join(out, RECORD)):
        return True
    try:
        return "unfinished" in read_checkpoint(out, weights=False).provenance
    except SchemaError:
        return False


def test_scores(job: TrainJob, checkpoint: Checkpoint) -> dict[str, Any]:
    """The confusion of the test split, and its scores as `Scores.to_dict` gives them."""
    blocks = job.blocks()
    items = BlockDataset(blocks.read(splits.TEST), job.features, checkpoint.statistics)
    names = checkpoint.label_scheme.names
    loader = batches(items, 0, batch_size=1)
    counts = validate(checkpoint.build_network(), loader, checkpoint.block_config.tile_size_m, len(names))[1]
    return {"confusion": counts.tolist(), **Scores.from_confusion(counts, names).to_dict()}


def finished_checkpoint(job: TrainJob) -> Checkpoint | None:
    """The record of the checkpoint that this very training has written, without weights; None before."""
    try:
        checkpoint = read_checkpoint(job.out, weights=False)
    except SchemaError:
        return None
    return checkpoint if checkpoint.provenance.get("key") == job.key() else None
