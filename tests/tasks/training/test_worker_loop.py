"""What a Ray worker checks and says around the training loop."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.recipes import recipe
from pointcloud.errors import StorageError
from pointcloud.storage.lock import Lock, held
from tasks.training import worker_loop
from tasks.training.epochs_kept import TrainRun
from tasks.training.failures import Stopped
from tasks.training.job import TrainJob
from tests.support.clouds import assert_one_sentence


class Told(list):
    """As a Ray queue takes messages."""

    put = list.append


def test_a_folder_that_is_not_shared_with_the_driver_is_said(small_job: TrainJob) -> None:
    queue: Any = Told()
    with pytest.raises(Stopped, match="does not see the folder") as error:
        worker_loop._train(small_job, TrainRun(small_job.out, "abc"), queue, None)
    assert_one_sentence(error, "or a bucket")


def test_a_lost_lock_ends_the_training_and_storage_that_is_away_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(uri: str) -> bool:
        raise StorageError(f"cannot reach {uri!r}.")

    worker_loop._check(None)
    with held(str(tmp_path / "out")) as lock:
        worker_loop._check(lock)
        Path(lock.claim).unlink()
        with pytest.raises(Stopped, match=r"the lock on .* was lost"):
            worker_loop._check(lock)
    monkeypatch.setattr("pointcloud.storage.lock.files.exists", away)
    with pytest.raises(StorageError, match="cannot reach"):
        worker_loop._check(Lock(str(tmp_path / "out"), "claim"))


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_ray_worker_gives_signs_of_life(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_loop, "_BEAT_SECONDS", 0.01)
    queue: Any = Told()
    with worker_loop._alive(queue, rank):
        end = time.monotonic() + (20 if rank == 0 else 0.1)
        while len(queue) < 4 and time.monotonic() < end:
            time.sleep(0.01)
    assert queue[0] == {"alive": True}
    assert len(queue) >= 4 if rank == 0 else len(queue) == 1


def test_a_step_that_is_larger_than_the_dataset_is_the_dataset(small_job: TrainJob) -> None:
    blocks = small_job.blocks()
    num_blocks = blocks.manifest.num_blocks("train")
    assert num_blocks > 4
    assert len(worker_loop._train_loader(small_job, blocks, 0, 1)) == num_blocks // 4
    large = replace(small_job, training=recipe("modern", epochs=1, batch_size=1000))
    (batch,) = worker_loop._train_loader(large, blocks, 0, 1)
    assert batch.num_graphs == num_blocks


def test_more_ray_workers_than_blocks_are_said(small_job: TrainJob) -> None:
    blocks = small_job.blocks()
    many = replace(small_job, training=recipe("modern", epochs=1, batch_size=1000))
    with pytest.raises(Stopped, match="worker"):
        worker_loop._train_loader(many, blocks, 0, 1000)


def test_validation_blocks_come_once_and_whole(small_job: TrainJob) -> None:
    blocks = small_job.blocks()
    seen = sum(batch.num_graphs for batch in worker_loop._val_loader(small_job, blocks))
    assert seen == blocks.manifest.num_blocks("val")
