"""The embedded Prefect server of the command line outlives what ends it too early, and nothing but the flow."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil

_CTRL_C = """
import os, signal, time
import httpx, psutil
from prefect.settings import PREFECT_API_URL
from flows.embedded_server import prefect_api

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts without
try:
    with prefect_api():
        (server,) = psutil.Process().children()
        print(httpx.get(f"{PREFECT_API_URL.value()}/admin/settings").json()["server"]["analytics_enabled"])
        server.send_signal(signal.SIGINT)
        time.sleep(1)
        print(httpx.get(f"{PREFECT_API_URL.value()}/health").text)
        os.killpg(0, signal.SIGINT)
        time.sleep(30)
except KeyboardInterrupt:
    print(server.pid)
    raise SystemExit(130)
"""


_LOST = """
import os, signal, time
import psutil
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from flows.embedded_server import prefect_api

@flow
def works():
    # As `timeout` and Slurm end what they started: all of it at once.
    signal.signal(signal.SIGTERM, lambda *_: print("asked to end"))
    os.killpg(0, signal.SIGTERM)
    time.sleep(1)
    print("running" if server.is_running() else "gone")
    # As the kernel ends what takes too much memory.
    server.kill()
    psutil.wait_procs([server], timeout=60)

with prefect_api():
    (server,) = psutil.Process().children()
    state = works(return_state=True)
    with get_client(sync_client=True) as client:
        print(client.read_flow_run(state.state_details.flow_run_id).state.type.value)
    (other,) = psutil.Process().children()
    print(other.pid)
"""

_KILLED = """
import os, signal
import psutil
from flows.embedded_server import prefect_api

with prefect_api():
    (server,) = psutil.Process().children()
    print(server.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run(script: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A script in a session of its own, on an embedded server."""
    unset = ("PREFECT_API_URL", "PREFECT_SERVER_ANALYTICS_ENABLED", "DO_NOT_TRACK")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"PREFECT_HOME": str(home), "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120"}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=240,
        start_new_session=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip


def test_ctrl_c_is_heard_by_the_flow_and_its_server_ends_after_it(tmp_path: Path) -> None:
    done = run(_CTRL_C, tmp_path)
    assert done.returncode == 130, done.stderr[-2000:]
    analytics, answer, server = done.stdout.split()
    assert analytics == "False", (
        "nothing is sent about its use, also where the environment says nothing of it"
    )
    assert answer == "true"
    assert not psutil.pid_exists(int(server))
    assert done.stderr == ""


def test_a_server_that_ends_before_its_flow_is_started_again_and_hears_how_the_flow_ended(
    tmp_path: Path,
) -> None:
    done = run(_LOST, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    *said, server = done.stdout.splitlines()
    assert said == ["asked to end", "running", "COMPLETED"]
    assert not psutil.pid_exists(int(server))


def test_a_killed_flow_leaves_no_server_and_the_user_is_told(tmp_path: Path) -> None:
    done = run(_KILLED, tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    limit = time.monotonic() + 60
    with suppress(psutil.NoSuchProcess):
        server = psutil.Process(int(done.stdout))
        while server.status() != psutil.STATUS_ZOMBIE:  # and gone, where somebody waits for it
            assert time.monotonic() < limit, "the server lives on"
            time.sleep(0.1)
    assert "error: the flow's process ended before its flow" in done.stderr


_MANY = """
from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner
from flows.embedded_server import prefect_api

@task
def one(n):
    print("task", n)

@flow(log_prints=True, task_runner=ThreadPoolTaskRunner(max_workers=8))
def many():
    for future in [one.submit(n) for n in range(60)]:
        future.result()

with prefect_api():
    many()
"""


def test_states_and_log_lines_are_complete_in_the_database_when_the_process_has_ended(tmp_path: Path) -> None:
    done = run(_MANY, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    with closing(sqlite3.connect(tmp_path / "prefect.db")) as database:
        (flow_state,) = database.execute("SELECT state_type FROM flow_run").fetchall()
        task_states = database.execute("SELECT state_type FROM task_run").fetchall()
        lines = {line for (line,) in database.execute("SELECT message FROM log")}
    assert flow_state == ("COMPLETED",)
    assert task_states == [("COMPLETED",)] * 60
    assert {f"task {n}" for n in range(60)} <= lines
