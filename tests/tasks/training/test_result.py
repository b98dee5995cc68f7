"""Which epoch becomes the checkpoint, and which checkpoint may be replaced by it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.network.deepgcn import DeepGCN
from models.weights.checkpoint import read_checkpoint, save_checkpoint
from tasks.training import result
from tasks.training.job import TrainJob


def state(job: TrainJob, *mious: float | None) -> dict[str, Any]:
    torch.manual_seed(len(mious))
    history = [{"epoch": n + 1, "val_miou": miou} for n, miou in enumerate(mious)]
    return {"history": history, "best": DeepGCN(job.network).state_dict()}


@pytest.mark.parametrize(
    ("mious", "best"),
    [((0.5, 0.25), 1), ((0.25, 0.5), 2), ((0.5, 0.5), 2), ((0.5, None), 1), ((None, None), 2)],
)
def test_the_best_epoch_is_the_later_of_equals(
    small_job: TrainJob, mious: tuple[float | None, ...], best: int
) -> None:
    manifest = small_job.blocks().manifest
    checkpoint = result.checkpoint_of(small_job, manifest, state(small_job, *mious), {"key": "k"})
    assert checkpoint.metrics == {"val_miou": mious[best - 1], "epoch": best}
    assert checkpoint.provenance["dataset"] == small_job.dataset
    assert checkpoint.provenance["key"] == "k"


def test_a_better_epoch_can_be_used_while_the_training_goes_on(small_job: TrainJob) -> None:
    manifest = small_job.blocks().manifest
    assert result.publish_unfinished(small_job, manifest, state(small_job, 0.5))
    assert not result.publish_unfinished(small_job, manifest, state(small_job, 0.5, 0.25))
    assert read_checkpoint(small_job.out).metrics["epoch"] == 1
    assert result.publish_unfinished(small_job, manifest, state(small_job, 0.5, 0.25, 0.75))
    checkpoint = read_checkpoint(small_job.out)
    assert checkpoint.metrics["epoch"] == 3
    assert checkpoint.provenance["unfinished"] == small_job.key()
    assert result.finished_checkpoint(small_job) is None, "nobody takes it for finished"


def test_a_finished_checkpoint_is_known_by_its_key_and_stays(small_job: TrainJob) -> None:
    manifest = small_job.blocks().manifest
    assert result.finished_checkpoint(small_job) is None
    trained = result.checkpoint_of(small_job, manifest, state(small_job, 0.5), {"key": small_job.key()})
    save_checkpoint(small_job.out, trained)
    finished = result.finished_checkpoint(small_job)
    assert finished is not None
    assert finished.metrics == trained.metrics
    assert not result.publish_unfinished(small_job, manifest, state(small_job, 0.9))
    assert not result.keep_best_before(small_job, manifest, state(small_job, 0.9), "the loss became NaN.")
    save_checkpoint(
        small_job.out, result.checkpoint_of(small_job, manifest, state(small_job, 0.5), {"key": "other"})
    )
    assert result.finished_checkpoint(small_job) is None
