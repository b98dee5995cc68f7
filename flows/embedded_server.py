"""Running a flow at once in this process, as the command line and the demo do."""

from __future__ import annotations

import atexit
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any

import httpx
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)
from pydantic import BaseModel, SecretStr

from flows import server_process
from flows.prefect_database import check_database
from flows.preflight import check_server
from pointcloud.errors import PointloomError
from tasks.runtime.environment import PREFECT
from tasks.runtime.ray_address import check_ray_address

_STOP_SECONDS = 20
_PAUSE_SECONDS = 0.5
_ASK_SECONDS = 1.0
_POLL_SECONDS = 0.05
_SHORT_QUIET_SECONDS, _QUIET_SECONDS = 0.3, 3.0
_UNFINISHED = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")


def run(
    check: Callable[[Any], None],
    flow: Callable[[Any], Any],
    parameters: BaseModel,
    prepared: Callable[[Any], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> Any:
    """Check the parameters, then run the flow.

    The checks of the parameters, of the Ray cluster and of the Prefect server or its database come before anything
    starts, so that a wrong path or a server that does not answer is one sentence at once.

    Args:
        check: checks the parameters. Raises PointloomError.
        flow: the flow to run.
        parameters: the parameters of the flow.
        prepared: what the flow needs besides, entered while the embedded server starts; it ends after the flow.

    Raises:
        PointloomError: as `check` and the flow raise it.
    """
    check(parameters)
    if address := os.environ.get("RAY_ADDRESS"):
        check_ray_address(address)
    if url := PREFECT_API_URL.value():
        check_server(url)
    elif database := PREFECT_SERVER_DATABASE_CONNECTION_URL.value():
        check_database(database.get_secret_value() if isinstance(database, SecretStr) else database)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)
    if not PREFECT_API_URL.value():
        _embedded_server()  # it starts in a process of its own, while `prepared` is entered
    with prepared(parameters), prefect_api():
        return flow(parameters)


def _without_link(record: logging.LogRecord) -> bool:
    """Leave out the link to a run's page: the embedded server shows no pages."""
    return not str(record.msg).startswith("View at ")


def _without_traceback(record: logging.LogRecord) -> bool:
    """Leave out the traceback of an error that is one sentence for the user; the run's final state repeats it."""
    return not (record.exc_info and isinstance(record.exc_info[1], PointloomError))


@contextmanager
def prefect_api() -> Iterator[None]:
    """The Prefect server that PREFECT_API_URL or the profile names, or an embedded one.

    The embedded one is started once and ends with this process, not with the `with` body: Prefect sends log lines and
    the states of tasks in the background, the last of them when the interpreter ends. (Prefect would start one by
    itself, but then once more in every process of a process pool.)

    Raises:
        PointloomError: the embedded server does not start.
    """
    if PREFECT_API_URL.value():
        yield
        return
    logging.getLogger("prefect.flow_runs").addFilter(_without_link)
    server = _embedded_server()
    server.wait_until_ready()
    with temporary_settings({PREFECT_API_URL: server.api_url}):
        yield


@cache
def _embedded_server() -> EmbeddedServer:
    server = EmbeddedServer()
    atexit.register(server.stop)  # after Prefect has sent what it has, which it does when threads are joined
    return server


class EmbeddedServer:
    """A Prefect server in a process of its own, which starts at once, and again at the same address when it is lost.

    Its socket belongs to this process, so that what is asked while the server starts waits for the answer.

    Attributes:
        api_url: as PREFECT_API_URL has it.
    """

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.api_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/api"
        self._over, self._began = threading.Event(), datetime.now(UTC).isoformat()
        self._process = self._start()
        self._keeper = threading.Thread(
            target=self._keep_running, name="keeper of the Prefect server", daemon=True
        )

    def wait_until_ready(self) -> None:
        """Wait until the server answers.

        Raises:
            PointloomError: it ends while it starts, or does not answer in Prefect's time for that.
        """
        limit = time.monotonic() + PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
        while not self._answers():
            if self._process.poll() is not None:
                raise _not_started("it ended while it started")
            if time.monotonic() > limit:
                raise _not_started("it does not answer")
        if self._keeper.ident is None:
            self._keeper.start()

    def stop(self) -> None:
        """End the server, and wait for its end."""
        self._await_states()
        self._over.set()
        _end(self._process)
        if self._keeper.ident is not None:
            self._keeper.join(_STOP_SECONDS)
        self._socket.close()

    def _await_states(self) -> None:
        """Wait until the states of tasks are in the database.

        The server takes them as events and records them one by one; what still waits when it ends is lost. Nothing
        tells how many wait: all are taken to be recorded when no task is left running, and nothing changes any more.
        """
        counts, now = (-1, -1), time.monotonic()
        changed, limit = now, now + _STOP_SECONDS
        while now < limit:
            try:
                before, counts = counts, (self._count_tasks(), self._count_tasks(_UNFINISHED))
            except httpx.HTTPError:  # it was lost; what waited in it is lost with it
                return
            now = time.monotonic()
            if counts != before:
                changed = now
            elif now - changed > (_QUIET_SECONDS if counts[1] else _SHORT_QUIET_SECONDS):
                return
            time.sleep(_POLL_SECONDS)

    def _count_tasks(self, states: tuple[str, ...] = ()) -> int:
        """How many task runs since this server's start are known to it, in any state or in one of these."""
        tasks: dict[str, Any] = {"expected_start_time": {"after_": self._began}}
        if states:
            tasks["state"] = {"type": {"any_": states}}
        answer = httpx.post(
            f"{self.api_url}/task_runs/count",
            json={"task_runs": tasks},
            timeout=_STOP_SECONDS,
            trust_env=False,
        )
        return int(answer.raise_for_status().json())

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", server_process.__file__, str(self._socket.fileno())],
            env={**PREFECT, **os.environ},
            stdin=subprocess.PIPE,
            bufsize=0,  # closing must not write again
            pass_fds=[self._socket.fileno()],
        )

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.api_url}/health", timeout=_ASK_SECONDS, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def _keep_running(self) -> None:
        """Start the server again whenever it was lost: one that runs out of memory would end a training of hours."""
        while True:
            self._process.wait()
            if self._over.wait(_PAUSE_SECONDS):
                return
            self._process = self._start()
            if self._over.is_set():
                _end(self._process)


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(server_process.ALL_IS_WELL)
    process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _not_started(reason: str) -> PointloomError:
    return PointloomError(
        f"the embedded Prefect server did not start ({reason}); set PREFECT_HOME to an empty folder, or "
        "PREFECT_API_URL to a server that runs."
    )
