"""Several Ray workers train one network, as one would; what they say and what stops them gets to the user."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.train
import torch
import torch.distributed as dist
from prefect import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterTaskRunId
from prefect.client.schemas.sorting import LogSort

from flows.train import train
from models.training.state_record import WEIGHTS
from models.weights.checkpoint import read_checkpoint
from pointcloud.errors import PointloomError, ScanError
from pointcloud.storage.lock import held
from tasks.training import fit
from tasks.training.epochs_kept import TrainRun, read_state, run_of
from tasks.training.failures import failures_to
from tasks.training.job import TrainJob
from tasks.training.train import train_network
from tasks.training.worker_loop import train_loop
from tests.flows.test_main_job import small_training
from tests.flows.test_train import blocks
from tests.support.clouds import assert_one_sentence
from tests.support.prefect_server import artifacts_of

__all__ = ["blocks"]
pytestmark = pytest.mark.usefixtures("ray_cluster")


def without_chance(blocks: Path, out: Path, **changes: Any) -> TrainJob:
    settings = {"epochs": 3, "augment": False, "batch_size": 4} | changes
    job = small_training(blocks, out, **settings).job()
    return replace(job, network=replace(job.network, dropout=0.0, stochastic_epsilon=0.0))


def last_state(job: TrainJob) -> dict[str, Any]:
    last = run_of(job.out, job.key(), fresh=False).newest()
    assert last is not None
    return read_state(last)


@pytest.mark.slow
def test_two_ray_workers_train_as_one_does_in_two_parts(blocks: Path, tmp_path: Path) -> None:
    # Augmented, since what a block becomes does not depend on who takes it.
    one = without_chance(blocks, tmp_path / "one", accumulation=2, augment=True)
    two = without_chance(blocks, tmp_path / "two", num_workers=2, augment=True)
    train_network(one)
    train_network(two)
    alone, pair = last_state(one), last_state(two)
    losses = [[epoch["train_loss"] for epoch in state["history"]] for state in (alone, pair)]
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][2] < losses[0][0]
    for name, tensor in alone["network"].items():
        # Batch norm's running statistics are of another number of parts; they do not train.
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(pair["network"][name], tensor, rtol=1e-2, atol=1e-3)
    assert_heard(two)


def assert_heard(job: TrainJob) -> None:
    """Both Ray workers' log lines lie under the task run, and so do the epochs."""
    epochs = f"Epochs of {job.out}"
    (task_run,) = {a.task_run_id for a in artifacts_of(epochs) if a.description == epochs}
    with get_client(sync_client=True) as client:
        only = LogFilter(task_run_id=LogFilterTaskRunId(any_=[task_run]))
        deadline = time.monotonic() + 30
        while True:  # log lines travel in the background
            said = "\n".join(log.message for log in client.read_logs(only, sort=LogSort.TIMESTAMP_ASC))
            if "epoch 3/3" in said or time.monotonic() > deadline:
                break
            time.sleep(1)
    for number in (0, 1):
        assert f"Ray worker {number}: Ray worker {number + 1} of 2, on " in said
    assert "epoch 3/3" in said


def loop_with_a_bad_scan(config: dict[str, Any]) -> None:
    """One Ray worker meets a scan it cannot read, while the others wait for it."""
    if ray.train.get_context().get_world_rank() == 1:
        with failures_to(config["queue"]):
            raise ScanError("scan 'b.laz' is cut off; copy it again.")
    dist.barrier()


@pytest.mark.slow
def test_what_stops_one_ray_worker_stops_all(
    blocks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "train_loop", loop_with_a_bad_scan)
    began = time.monotonic()
    with pytest.raises(PointloomError, match=r"scan 'b\.laz' is cut off") as error:
        train_network(without_chance(blocks, tmp_path / "out", num_workers=2))
    assert_one_sentence(error, "copy it again")
    assert time.monotonic() - began < 200


# The quick part: tests/tasks/training/test_worker_loop.py.
@pytest.mark.slow
def test_a_step_larger_than_the_dataset_is_the_dataset(blocks: Path, tmp_path: Path) -> None:
    job = without_chance(blocks, tmp_path / "out", batch_size=1000, num_workers=1)
    train_network(replace(job, training=replace(job.training, epochs=1)))
    assert read_checkpoint(job.out).metrics["epoch"] == 1


def test_ray_workers_that_never_get_room_are_said(
    blocks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "_START_SECONDS", 5.0)
    job = replace(without_chance(blocks, tmp_path / "out", num_workers=2, min_workers=1), wait_s=1.0)
    other = ray.remote(num_cpus=2)(Other).remote()
    ray.get(other.ready.remote())  # type: ignore[attr-defined]
    began = time.monotonic()
    with pytest.raises(PointloomError, match=r"no Ray worker .* was up for 6 s") as error:
        train_network(job)
    assert 6 <= time.monotonic() - began < 60
    assert_one_sentence(error, "wait_s")
    ray.kill(other)
    assert_no_worker_takes_the_room()


def assert_no_worker_takes_the_room() -> None:
    """A training that had not ended would start its worker as soon as there is room."""
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < deadline, "the room does not get free"
        time.sleep(0.2)
    for _ in range(15):
        time.sleep(0.2)
        assert ray.available_resources().get("CPU") == 2


class Other:
    """Somebody else at work on all CPUs of the cluster."""

    def ready(self) -> bool:
        return True


def dying_loop(config: dict[str, Any]) -> None:
    """A Ray worker that dies in its first epochs, once in each."""
    marker = Path(config["job"].out) / "died"
    times = int(marker.read_text()) if marker.exists() else 0
    if times < 3 and config["run"].epochs_done() == times:
        marker.parent.mkdir(exist_ok=True)
        marker.write_text(str(times + 1))
        config = config | {
            "job": replace(config["job"], training=replace(config["job"].training, epochs=times + 1))
        }
        train_loop(config)
        with failures_to(config["queue"]):
            raise RuntimeError("the node is\nlost")
    train_loop(config)


def always_dying_loop(config: dict[str, Any]) -> None:
    with failures_to(config["queue"]):
        raise RuntimeError("first line\nthe node is lost")


@pytest.mark.slow
def test_lost_ray_workers_count_only_without_an_epoch_in_between(
    blocks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = without_chance(blocks, tmp_path / "out", epochs=4, schedule="halving")
    monkeypatch.setattr(fit, "train_loop", dying_loop)
    train_network(job)
    assert [epoch["epoch"] for epoch in read_checkpoint(job.out).history] == [1, 2, 3, 4]
    assert (tmp_path / "out" / "died").read_text() == "3"
    monkeypatch.setattr(fit, "train_loop", always_dying_loop)
    with pytest.raises(
        PointloomError, match=r"lost 3 times in epoch 1 .*RuntimeError: the node is lost"
    ) as error:
        train_network(replace(job, out=str(tmp_path / "other")))
    assert_one_sentence(error, "run again")


def test_two_runs_on_one_output_do_not_mix(blocks: Path, tmp_path: Path) -> None:
    with (
        held(str(tmp_path / "out")),
        pytest.raises(PointloomError, match="another run is writing") as error,
    ):
        train(small_training(blocks, tmp_path / "out"))
    assert_one_sentence(error, "start this one again")
    assert not (tmp_path / "out" / "runs").exists()


def test_a_training_continues_from_its_newest_complete_epoch(blocks: Path, tmp_path: Path) -> None:
    job = without_chance(blocks, tmp_path / "out", epochs=4, schedule="halving")
    whole = train_network(job)
    before = read_checkpoint(job.out).history
    # As if it had been killed before its end: its last epochs are kept, its checkpoint is not there.
    Path(job.out, "checkpoint.json").unlink()
    run = run_of(job.out, job.key(), fresh=False)
    third, fourth = sorted(Path(run.folder).glob("epoch_*/"))
    (fourth / WEIGHTS).write_bytes(b"half")
    again = train_network(job)
    history = read_checkpoint(job.out).history
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3, 4]
    assert history[:3] == before[:3], "with the seconds that each took: they were not trained again"
    assert history[3]["seconds"] != before[3]["seconds"]
    assert (again["val_miou"], history[3]["train_loss"]) == (whole["val_miou"], before[3]["train_loss"])
    assert sorted(Path(run.folder).glob("epoch_*/")) == [third, fourth]


# The quick part: tests/tasks/training/test_worker_loop.py, and test_fit.py for what a final failure does.
@pytest.mark.slow
def test_ray_workers_that_do_not_share_the_folder_are_said(
    blocks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainRun, "start", lambda run: None)  # the driver's folder is not the Ray worker's
    with pytest.raises(PointloomError, match="does not see the folder") as error:
        train_network(without_chance(blocks, tmp_path / "out"))
    assert_one_sentence(error, "or a bucket")


# The quick part: tests/tasks/training/test_worker_loop.py, and test_fit.py for what a final failure does.
@pytest.mark.slow
def test_a_run_that_lost_its_lock_writes_no_epoch_and_no_checkpoint(blocks: Path, tmp_path: Path) -> None:
    job = without_chance(blocks, tmp_path / "out", epochs=1)
    with held(job.out) as lock:
        Path(lock.claim).unlink()
        with pytest.raises(PointloomError, match=r"the lock on .* was lost") as error:
            train_network(job, lock)
    assert_one_sentence(error, "start this one again")
    assert "Ray workers were lost" not in str(error.value), "another try would not get the lock back"
    assert not list((tmp_path / "out").glob("runs/*/epoch_*"))
    assert not (tmp_path / "out" / "checkpoint.json").exists()


@pytest.mark.slow
def test_a_training_anew_is_one_and_replaces_what_it_replaces(blocks: Path, tmp_path: Path) -> None:
    job = without_chance(blocks, tmp_path / "out", epochs=1)
    runs = Path(job.out) / "runs"

    def names() -> set[str]:
        return {path.name for path in runs.iterdir() if path.is_dir()}

    train_network(job)
    (first,) = names()
    before = read_checkpoint(job.out).history[0]
    begun = run_of(job.out, job.key(), fresh=True)
    assert begun.name != first
    assert run_of(job.out, job.key(), fresh=True) == begun, "killed, it is gone on with"
    train_network(replace(job, fresh=True))
    assert names() == {begun.name}
    after = read_checkpoint(job.out).history[0]
    assert after["train_loss"] == before["train_loss"], "the same seed gives the same training"
    assert after["seconds"] != before["seconds"], "and it was trained anew"
    assert run_of(job.out, job.key(), fresh=True).name != begun.name, "the next is another one"
    other = replace(job, training=replace(job.training, seed=1))
    train_network(other)
    assert names() == {other.key()}, "runs of other settings go when they are replaced"
