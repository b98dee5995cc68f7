"""`make up` to `make down` with real processes on free ports."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra import local_services, prefect_api, processes
from infra.service_state import HOST, read_state

ROOT = Path(__file__).parents[2]
_BASE_PORT = 42600


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    shutil.copy(ROOT / "prefect.yaml", tmp_path)
    yield tmp_path
    state = read_state(tmp_path / ".pointloom" / "up")
    if state is not None:
        processes.end_marked(state.mark, 10)


def services(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.local_services", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert local_services.free_port(port) > port


def test_up_needs_a_project(tmp_path: Path) -> None:
    done = services(tmp_path, "up")
    assert done.returncode == 1
    assert done.stderr == f"error: no prefect.yaml in {tmp_path}; run this in the folder of the project.\n"


@pytest.mark.slow
def test_a_start_that_fails_midway_leaves_nothing(project: Path) -> None:
    (project / "prefect.yaml").write_text("deployments: [{name: x, entrypoint: flows.nowhere.nowhere}]\n")
    done = services(project, "up", "--port", str(_BASE_PORT))
    assert done.returncode == 1
    assert "'prefect deploy --all' failed" in done.stderr
    assert "deploy.log" in done.stderr
    assert read_state(project / ".pointloom" / "up") is None
    assert not running_in(project)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_up_a_flow_run_and_down(project: Path) -> None:
    (project / "report").mkdir()
    up = services(project, "up", "--port", str(_BASE_PORT))
    assert up.returncode == 0, up.stdout + up.stderr
    state = read_state(project / ".pointloom" / "up")
    assert state is not None
    assert f"Prefect UI   {state.url}" in up.stdout

    names = prefect_api.deployments(state.api_url)
    flows = ("ablate", "crossval", "evaluate", "preprocess", "segment", "train")
    assert names == [f"{flow}/{flow}" for flow in flows]
    automations = prefect_api.ask(state.api_url, "/automations/filter", {})
    assert [a["name"] for a in automations] == ["pointloom-lost-flow-runs"]

    # A second `up` starts nothing.
    again = services(project, "up", "--port", str(_BASE_PORT))
    assert again.returncode == 0
    assert again.stdout.startswith("Already up.")
    assert read_state(project / ".pointloom" / "up") == state

    # A relative path counts from the project: the sentence proves that the file there was opened.
    (project / "here.las").write_bytes(b"no LAS at all" * 100)
    run = flow_run(state.api_url, "preprocess", {"scans": ["here.las"], "out": "blocks"})
    assert run["state"]["type"] == "FAILED"
    assert "here.las" in run["state"]["message"]
    assert (project / "blocks" / "ledger").exists()

    down = services(project, "down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert "Ended: Prefect server, Prefect worker." in down.stdout
    assert not running_in(project)
    assert services(project, "down").stdout == "Nothing is running.\n"


def flow_run(api_url: str, flow: str, parameters: dict[str, object]) -> dict[str, object]:
    """Trigger a deployment as the UI does and wait until the run has ended."""
    deployment = prefect_api.ask(api_url, f"/deployments/name/{flow}/{flow}")
    run = prefect_api.ask(
        api_url,
        f"/deployments/{deployment['id']}/create_flow_run",
        {"parameters": {"parameters": parameters}, "state": {"type": "SCHEDULED"}},
    )
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        run = prefect_api.ask(api_url, f"/flow_runs/{run['id']}")
        if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return run
        time.sleep(1)
    raise AssertionError(f"still {run['state']['type']} after 180 s")


def running_in(project: Path) -> list[int]:
    """Processes that work for the Prefect home of this project."""
    home, found = str(project / ".pointloom" / "up" / "prefect"), []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PREFECT_HOME") == home:
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found
