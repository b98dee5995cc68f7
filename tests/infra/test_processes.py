"""What was started is ended with all it started; a stranger who was given its pid is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra import local_services, prefect_api, processes, service_state
from infra.environment import environment
from infra.processes import MARK, Service
from infra.service_state import State
from pointcloud.errors import PointloomError

SLEEP = [sys.executable, "-c", "import time; time.sleep(120)"]
# Starts a child in a session of its own, says its pid, and does not care about SIGTERM.
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "sleep = [sys.executable, '-c', 'import time; time.sleep(120)']\n"
    "child = subprocess.Popen(sleep, start_new_session=True)\n"
    "print(child.pid, flush=True); time.sleep(120)",
]


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEP)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def started(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    command = getattr(request, "param", SLEEP)
    service = processes.start("sleeper", command, dict(os.environ), tmp_path / "log", "mark-of-this-test")
    yield service
    if psutil.pid_exists(service.pid):
        psutil.Process(service.pid).kill()


def child_of(service: Service) -> psutil.Process:
    deadline = time.monotonic() + 20
    while not (line := Path(service.log).read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return psutil.Process(int(line))


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_service_is_found_and_ended(started: Service) -> None:
    assert processes.running(started)
    assert processes.end(started, 5) == []
    assert not alive(started.pid)
    assert processes.running(started) is None


@pytest.mark.parametrize("started", [STUBBORN], indirect=True)
def test_what_does_not_end_is_killed_with_its_children(started: Service) -> None:
    child = child_of(started)
    assert started.pid in processes.end(started, 0.5)
    assert not alive(started.pid)
    assert not alive(child.pid)


@pytest.mark.parametrize("started", [STUBBORN], indirect=True)
def test_orphans_are_found_by_the_mark(started: Service) -> None:
    child = child_of(started)
    os.kill(started.pid, signal.SIGKILL)
    os.waitpid(started.pid, 0)
    assert alive(child.pid)
    assert processes.end(started, 0.5) == [], "the service itself is gone"
    processes.end_marked(started.mark, 0.5)
    assert not alive(child.pid)


def test_a_reused_pid_is_a_stranger(stranger: subprocess.Popen[bytes]) -> None:
    created = psutil.Process(stranger.pid).create_time()
    for claim in (
        Service("server", stranger.pid, created - 1000, "mark", "log"),
        Service("server", stranger.pid, created, "mark", "log"),  # same second, but not started by us
    ):
        assert processes.running(claim) is None
        assert processes.end(claim, 0.1) == []
    assert alive(stranger.pid)


def test_a_mark_alone_is_not_enough(started: Service) -> None:
    assert processes.running(replace(started, created=started.created - 1000)) is None


def test_down_with_a_stale_state_ends_nobody(
    stranger: subprocess.Popen[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    created = psutil.Process(stranger.pid).create_time()
    state = State("mark", 1, [Service("Prefect server", stranger.pid, created, "mark", "log")], ready=True)
    service_state.write_state(tmp_path, state)
    assert local_services.down(tmp_path) == 0
    assert alive(stranger.pid)
    assert "Nothing was running any more" in capsys.readouterr().out
    assert service_state.read_state(tmp_path) is None


def test_down_and_status_with_nothing_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert local_services.down(tmp_path) == 0
    assert local_services.status(tmp_path) == 0
    assert capsys.readouterr().out.count("Nothing is running") == 2


def test_status_names_what_has_died(
    tmp_path: Path, started: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service_state.write_state(tmp_path, State(started.mark, 1, [started], ready=True))
    processes.end(started, 5)
    assert local_services.status(tmp_path) == 1
    assert "sleeper: has ended; see" in capsys.readouterr().out


@pytest.fixture
def half_dead(tmp_path: Path, started: Service, monkeypatch: pytest.MonkeyPatch) -> State:
    """In this folder, a project: the Prefect server runs, the Prefect worker has died; whatever starts is a sleeper."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prefect.yaml").touch()
    server = replace(started, name="Prefect server")
    worker = Service("Prefect worker", started.pid, started.created - 1000, started.mark, "log of the worker")
    state = State(started.mark, 1, [server, worker], ready=True)
    service_state.write_state(tmp_path, state)
    monkeypatch.setattr(local_services, "_PREFECT", SLEEP)
    monkeypatch.setattr(prefect_api, "deployments", lambda api_url: ["train/train"])
    return state


def test_up_starts_a_dead_worker_again_beside_the_server(
    tmp_path: Path, half_dead: State, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prefect_api, "worker_is_online", lambda *asked: True)
    assert local_services.up(tmp_path) == 0
    said = capsys.readouterr().out
    assert said.startswith("Prefect worker: has ended; see log of the worker\nStarting the Prefect worker")
    after = service_state.read_state(tmp_path)
    assert after is not None
    server, worker = after.services
    assert server == half_dead.services[0]
    assert processes.running(server)
    assert processes.running(worker)
    assert worker.name == "Prefect worker"
    assert local_services.up(tmp_path) == 0
    assert capsys.readouterr().out.startswith("Already up.")
    assert local_services.down(tmp_path) == 0
    assert not alive(worker.pid)


def test_a_worker_that_cannot_be_started_again_leaves_the_server(
    tmp_path: Path, half_dead: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_api, "worker_is_online", lambda *asked: False)
    monkeypatch.setattr(local_services, "_START_SECONDS", 0.1)
    with pytest.raises(PointloomError, match="the Prefect worker is not ready"):
        local_services.up(tmp_path)
    after = service_state.read_state(tmp_path)
    assert after is not None
    assert [bool(processes.running(service)) for service in after.services] == [True, False]
    assert local_services.status(tmp_path) == 1


def test_one_at_a_time(tmp_path: Path) -> None:
    with (
        service_state.one_at_a_time(tmp_path),
        pytest.raises(PointloomError, match="is at work"),
        service_state.one_at_a_time(tmp_path),
    ):
        pass


def test_a_damaged_state_is_said(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"mark": ')
    with pytest.raises(PointloomError, match=r"state\.json cannot be understood"):
        service_state.read_state(tmp_path)


def test_the_users_prefect_server_does_not_reach_the_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    monkeypatch.setenv("PREFECT_API_URL", "https://elsewhere/api")
    variables = environment(tmp_path, tmp_path, "http://127.0.0.1:1/api")
    assert variables["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
    assert "PREFECT_API_KEY" not in variables
    assert MARK not in variables
