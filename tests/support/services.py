"""The services of `make up` in the temporary folder of a project, and flow runs of their deployments."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from infra import prefect_api, processes
from infra.service_state import read_state

ROOT = Path(__file__).parents[2]
BASE_PORT = 42600
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@contextmanager
def temporary_project(folder: Path) -> Iterator[Path]:
    """A folder that `up` takes for a project; what a test left running there is ended."""
    shutil.copy(ROOT / "prefect.yaml", folder)
    try:
        yield folder
    finally:
        state = read_state(folder / ".pointloom" / "up")
        if state is not None:
            processes.end_marked(state.mark, 10)


def services(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make up`, `make down` or `make status`."""
    return subprocess.run(
        [sys.executable, "-m", "infra.local_services", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


def trigger(api_url: str, flow: str, parameters: dict[str, Any]) -> str:
    """Start a deployment as the UI does; the id of the flow run."""
    deployment = prefect_api.ask(api_url, f"/deployments/name/{flow}/{flow}")
    run = prefect_api.ask(
        api_url,
        f"/deployments/{deployment['id']}/create_flow_run",
        {"parameters": {"parameters": parameters}, "state": {"type": "SCHEDULED"}},
    )
    return str(run["id"])


def ended(api_url: str, run: str, limit_s: float = 180) -> dict[str, Any]:
    """The final state of a flow run, once it has one."""
    return until(lambda: state if (state := state_of(api_url, run))["type"] in ENDED else None, limit_s)


def state_of(api_url: str, run: str) -> dict[str, Any]:
    state: dict[str, Any] = prefect_api.ask(api_url, f"/flow_runs/{run}")["state"]
    return state


def log_of(api_url: str, run: str) -> list[str]:
    """The lines that a flow run and its task runs have logged so far, at most 200 of them."""
    asked = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
    return [str(line["message"]) for line in prefect_api.ask(api_url, "/logs/filter", asked)]


def until(condition: Callable[[], Any], limit_s: float) -> Any:
    """What the condition gives, once that counts as true."""
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"still not so after {limit_s:.0f} s"
        time.sleep(0.5)
    return found


def running_in(project: Path) -> list[psutil.Process]:
    """Processes that work for the Prefect home of this project."""
    return _with_variable("PREFECT_HOME", str(project / ".pointloom" / "up" / "prefect"))


def running_for(run: str) -> list[psutil.Process]:
    """Processes of a flow run: its own, and those of its Ray."""
    found = _with_variable("PREFECT__FLOW_RUN_ID", run)
    # A process that gives itself a title, as those of Ray do, overwrites the environment that others see.
    return list({child for each in found for child in _family(each)})


def _with_variable(name: str, value: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []
