"""The Prefect worker is killed, with its flow run or alone: trainings go on, and a timeline of it (`-s` shows it)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.train import TrainParameters
from infra.processes import running
from infra.service_state import State, read_state
from models.weights.checkpoint import read_checkpoint
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig
from tasks.training import epochs_kept
from tests.flows.test_main_job import preprocessing, small_training
from tests.support.services import (
    BASE_PORT,
    ENDED,
    ended,
    log_of,
    running_for,
    running_in,
    services,
    state_of,
    temporary_project,
    trigger,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
_EPOCHS = 40
# Two heartbeats missed are 40 to 70 s of silence; the rest is for a busy machine.
_CRASHED_WITHIN_S = 120.0
# They tell Ray's server of their raylet's end, and wait 60 s for an answer of the server, which is gone too.
_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose services are up, with blocks of two simulated tiles."""
    with temporary_project(tmp_path_factory.mktemp("project")) as folder:
        write_survey(
            SurveyConfig(seed=3, tile_size_m=40.0, tiles=(2, 1), points_per_m2=3.0), folder / "scans"
        )
        up = services(folder, "up", "--port", str(BASE_PORT))
        assert up.returncode == 0, up.stdout + up.stderr
        parameters = preprocessing([folder / "scans"], folder / "blocks")
        run = trigger(state_of_services(folder).api_url, "preprocess", parameters.model_dump(mode="json"))
        assert ended(state_of_services(folder).api_url, run)["type"] == "COMPLETED"
        yield folder
        assert services(folder, "down").returncode == 0
        assert not running_in(folder)


def state_of_services(project: Path) -> State:
    state = read_state(project / ".pointloom" / "up")
    assert state is not None
    return state


class Training:
    """A training of the project, and the flow runs that train it."""

    def __init__(self, project: Path, name: str) -> None:
        self.project, self.out = project, str(project / name)
        self.api_url = state_of_services(project).api_url
        self.parameters: TrainParameters = small_training(project / "blocks", project / name, epochs=_EPOCHS)
        self.kept = epochs_kept.run_of(self.out, self.parameters.job().key(), fresh=False)
        self.began = time.monotonic()
        print()

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {what}", flush=True)

    def start(self) -> str:
        run = trigger(self.api_url, "train", self.parameters.model_dump(mode="json"))
        self.say("the deployment train/train is triggered")
        return run

    def wait_for_an_epoch(self, run: str) -> None:
        def kept() -> bool:
            state = state_of(self.api_url, run)
            assert state["type"] not in ENDED, state
            return self.kept.epochs_done() > 0

        until(kept, 300)
        self.say(f"epoch {self.kept.epochs_done()} is kept")

    def history(self) -> list[dict[str, Any]]:
        """Of the epoch that the training goes on from."""
        last = self.kept.newest()
        assert last is not None
        return list(epochs_kept.read_state(last)["history"])

    def epochs_in_log(self, run: str) -> list[int]:
        told = (re.match(rf"epoch (\d+)/{_EPOCHS}:", line) for line in log_of(self.api_url, run))
        return [int(found[1]) for found in told if found]

    def kill_prefect_worker(self) -> None:
        (worker,) = (s for s in state_of_services(self.project).services if s.name == "Prefect worker")
        process = running(worker)
        assert process is not None
        process.kill()
        until(lambda: not alive(process), 30)

    def start_prefect_worker_again(self) -> None:
        before = state_of_services(self.project)
        assert services(self.project, "status").returncode == 1
        up = services(self.project, "up", "--port", str(BASE_PORT))
        assert up.returncode == 0, up.stdout + up.stderr
        assert up.stdout.startswith("Prefect worker: has ended; see ")
        after = state_of_services(self.project)
        assert (after.api_url, after.services[0]) == (before.api_url, before.services[0]), "the server stayed"
        assert all(running(service) for service in after.services)
        self.say("make up has started the Prefect worker again")

    def completes(self, run: str) -> None:
        state = ended(self.api_url, run, 400)
        self.say(f"the flow run is {state['name']}")
        assert state["type"] == "COMPLETED", state
        checkpoint = read_checkpoint(self.out)
        assert [epoch["epoch"] for epoch in checkpoint.history] == list(range(1, _EPOCHS + 1))
        assert "unfinished" not in checkpoint.provenance


def title_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:  # it has ended meanwhile
        return ""


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def test_a_killed_prefect_worker_leaves_its_flow_run_alone(project: Path) -> None:
    training = Training(project, "worker-killed")
    run = training.start()
    training.wait_for_an_epoch(run)
    training.kill_prefect_worker()
    training.say("the Prefect worker is killed")
    training.start_prefect_worker_again()
    training.completes(run)
    assert training.epochs_in_log(run) == list(range(1, _EPOCHS + 1))
    training.say("its log has every epoch, once")
    until(lambda: not running_for(run), 60)


def test_prefect_worker_and_flow_run_are_killed_and_the_deployment_is_run_again(project: Path) -> None:
    training = Training(project, "both-killed")
    run = training.start()
    training.wait_for_an_epoch(run)
    family = {process: title_of(process) for process in running_for(run)}
    own = [process for process, title in family.items() if "-m prefect" in title]
    assert own
    assert any("RayTrainWorker" in title for title in family.values())
    training.kill_prefect_worker()
    for process in own:  # Ray is left to notice by itself: nobody is there to end it
        process.kill()
    killed = time.monotonic()
    training.say("the Prefect worker and the process of the flow run are killed")
    until(lambda: not any(alive(p) and title not in _AGENTS for p, title in family.items()), 30)
    training.say("Ray's processes have ended with it, but for two agents")
    before = training.history()
    assert len(before) < _EPOCHS

    state = ended(training.api_url, run, _CRASHED_WITHIN_S)
    training.say(f"the flow run is {state['name']}, {time.monotonic() - killed:.0f} s after the kill")
    assert state["type"] == "CRASHED"
    assert state["message"].startswith("No heartbeat for 70 s")
    assert max(training.epochs_in_log(run), default=0) <= len(before) + 1

    training.start_prefect_worker_again()
    again = training.start()
    training.completes(again)
    history = read_checkpoint(training.out).history
    training.say(f"epochs 1 to {len(before)} are those of before the kill, the others were trained now")
    # With the seconds that each took: what was kept is not trained again.
    assert history[: len(before)] == before
    assert training.epochs_in_log(again) == list(range(len(before) + 1, _EPOCHS + 1))
    until(lambda: not running_for(run) and not any(map(alive, family)), 120 - (time.monotonic() - killed))
    training.say("no process of the killed flow run is left")
