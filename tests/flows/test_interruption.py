"""A training that was killed, whole or in part, goes on where it was, and a timeline of it (`-s` shows it)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.preprocess import preprocess
from flows.train import TrainParameters
from models.weights.checkpoint import RECORD, read_checkpoint
from tasks.training.epochs_kept import read_state
from tests.flows.test_main_job import preprocessing, small_training
from tests.support.flow_runs import FlowRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
_EPOCHS = 24


class Run(FlowRun):
    """A `train` flow."""

    def __init__(self, parameters: TrainParameters, folder: Path, embedded: bool) -> None:
        self.out = Path(parameters.out)
        super().__init__("train", parameters, folder, embedded)

    def kept(self) -> Path | None:
        """The folder of the newest epoch; its record is written last."""
        return max((record.parent for record in self.out.glob("runs/*/epoch_*/state.json")), default=None)

    def wait_for_epochs(self) -> list[dict[str, Any]]:
        """Until an epoch is kept; the history up to it."""
        self.until(lambda: self.kept() is not None)
        kept = self.kept()
        assert kept is not None
        history = read_state(str(kept))["history"]
        self.say(f"epoch {history[-1]['epoch']} is kept")
        return history

    def history(self) -> list[dict[str, Any]]:
        return read_checkpoint(str(self.out)).history


@pytest.fixture
def start(survey: Path, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    preprocess(preprocessing([survey], tmp_path / "blocks"))
    # With two CPUs a process makes blocks beside the Ray worker, and must not outlive it.
    changes = {"epochs": _EPOCHS, "cpus_per_worker": 2}
    parameters = small_training(tmp_path / "blocks", tmp_path / "checkpoint", **changes)
    runs: list[Run] = []

    def start(embedded: bool = False) -> Run:
        runs.append(Run(parameters, tmp_path, embedded))
        return runs[-1]

    print()
    yield start
    for run in runs:
        run.close()
    said = (tmp_path / "log").read_text()
    print(said[-3000:] if "Traceback" in said else "")


def test_a_killed_training_goes_on_from_its_last_epoch(start: Callable[..., Run]) -> None:
    run = start()
    before = run.wait_for_epochs()
    run.kill()
    run.say("the driver, Ray and the Ray worker are killed")
    if (run.out / RECORD).exists():  # the best so far, which a finished training would not be marked as
        assert "unfinished" in read_checkpoint(str(run.out)).provenance
    again = start()
    assert again.ends() == 0
    history = again.history()
    again.say(f"epochs 1 to {history[-1]['epoch']} are in the checkpoint, those before the kill unchanged")
    assert [epoch["epoch"] for epoch in history] == list(range(1, _EPOCHS + 1))
    assert history[: len(before)] == before


@pytest.mark.parametrize("group", [False, True])
def test_a_terminated_training_leaves_neither_ray_nor_the_embedded_server(
    start: Callable[..., Run], group: bool
) -> None:
    run = start(embedded=True)
    before = run.wait_for_epochs()
    assert run.find("server_process")
    assert run.find("raylet")
    code, left = run.terminate(group)
    assert code == 128 + signal.SIGTERM
    assert left == []
    if not group:  # how it goes on is the same for both, and takes a minute
        again = start()
        assert again.ends() == 0
        assert again.history()[: len(before)] == before


def test_a_killed_driver_takes_along_what_it_has_started_and_this_is_said(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    run = start(embedded=True)
    run.wait_for_epochs()
    started = psutil.Process(run.process.pid).children(recursive=True)
    run.process.kill()
    assert run.ends() == -signal.SIGKILL
    # Two agents of the raylet wait up to a minute for an answer of Ray's server, which is gone too.
    assert psutil.wait_procs(started, timeout=120)[1] == []
    run.say("nothing of it is left")
    assert "error: the flow's process ended before its flow" in (tmp_path / "log").read_text()


def test_a_killed_ray_worker_costs_at_most_an_epoch(start: Callable[..., Run]) -> None:
    run = start()
    before = run.wait_for_epochs()
    killed = run.find("RayTrainWorker")
    killed.kill()
    run.say("the Ray worker is killed")
    run.until(lambda: run.find("RayTrainWorker").pid != killed.pid)
    run.say("Ray Train has started another")
    assert run.ends() == 0, "the flow itself goes on"
    history = run.history()
    run.say(f"epochs 1 to {history[-1]['epoch']} are in the checkpoint, those before the kill unchanged")
    assert [epoch["epoch"] for epoch in history] == list(range(1, _EPOCHS + 1))
    assert history[: len(before)] == before


def test_a_disk_that_is_full_for_a_while_is_said_and_the_training_goes_on(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    small = tmp_path / "checkpoint"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(small)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk needs a machine where tests may mount one")
    try:
        run = start()
        before = run.wait_for_epochs()
        with (small / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(1 << 12))
        run.say("the disk is full")
        assert run.ends() == 1
        said = (tmp_path / "log").read_text()
        assert re.search(
            r"epoch \d+ of the training could not be kept in .*: No space left on device; make room", said
        )
        assert "TrainingFailedError" not in said
        (small / "filler").unlink()
        run.say("there is room again")
        again = start()
        assert again.ends() == 0
        history = again.history()
        again.say(f"epochs 1 to {history[-1]['epoch']} are in the checkpoint, those before unchanged")
        assert [epoch["epoch"] for epoch in history] == list(range(1, _EPOCHS + 1))
        assert history[: len(before)] == before
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
