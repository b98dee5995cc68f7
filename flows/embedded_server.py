"""Running a flow here and now, as the command line and the demo do."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any

import httpx
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings
from pydantic import BaseModel, SecretStr

from flows import server_reaper
from flows.prefect_database import check_database
from flows.preflight import check_server
from pointcloud.errors import PointloomError, one_line

_DRAIN_SECONDS = 20
_LOOK_SECONDS = 0.5
_PORTS_TRIED = 2


def run(check: Callable[[Any], None], flow: Callable[[Any], Any], parameters: BaseModel) -> Any:
    """Check the parameters, then run the flow.

    The checks of the parameters and of the Prefect server or its database come before anything starts, so that a wrong
    path or a server that does not answer is one sentence at once.

    Raises:
        PointloomError: as `check` and the flow raise it.
    """
    check(parameters)
    if url := PREFECT_API_URL.value():
        check_server(url)
    elif database := PREFECT_SERVER_DATABASE_CONNECTION_URL.value():
        check_database(database.get_secret_value() if isinstance(database, SecretStr) else database)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)
    with prefect_api():
        return flow(parameters)


def _without_link(record: logging.LogRecord) -> bool:
    """Leave out the link to a run's page: the embedded server shows no pages."""
    return not str(record.msg).startswith("View at ")


def _without_traceback(record: logging.LogRecord) -> bool:
    """Leave out the traceback of an error that is one sentence for the user; the run's final state repeats it."""
    return not (record.exc_info and isinstance(record.exc_info[1], PointloomError))


class _Server(SubprocessASGIServer):
    """An embedded server that does not try for ever to start.

    Prefect asks for another port whenever its server ends while starting, whatever ended it.
    """

    _ports_asked = 0

    def find_available_port(self) -> int:
        self._ports_asked += 1
        if self._ports_asked > _PORTS_TRIED:
            raise RuntimeError(f"it ended {_PORTS_TRIED} times while it started")
        return super().find_available_port()

    def start(self, timeout: int | None = None) -> None:
        self._ports_asked = 0
        super().start(timeout)


@contextmanager
def prefect_api() -> Iterator[None]:
    """The Prefect server that PREFECT_API_URL or the profile names, or an embedded one for the time of the block.

    Prefect would start the embedded one by itself, but then once more in every process of a process pool.

    Raises:
        PointloomError: the embedded server does not start.
    """
    if PREFECT_API_URL.value():
        yield
        return
    logging.getLogger("prefect.flow_runs").addFilter(_without_link)
    server, over = _Server(), threading.Event()
    # In the context of now: once PREFECT_API_URL is set, a new server would take itself for another's client.
    with _last_word() as tell:
        keeper = threading.Thread(
            target=copy_context().run, args=(_keep_running, server, tell, over), daemon=True
        )
        _start(server, tell)
        keeper.start()
        try:
            with temporary_settings({PREFECT_API_URL: server.api_url}):
                yield
        finally:
            # Logs and events travel in the background; without the server they would be tried again and again.
            APILogWorker.drain_all(timeout=_DRAIN_SECONDS)
            EventsWorker.drain_all(timeout=_DRAIN_SECONDS)
            over.set()
            keeper.join()
            server.stop()


@contextmanager
def _last_word() -> Iterator[Callable[[int], None]]:
    """Takes the embedded server's process id, so that the server ends even if this process is killed."""
    process = subprocess.Popen(
        [sys.executable, "-I", server_reaper.__file__],
        stdin=subprocess.PIPE,
        bufsize=0,  # closing has nothing left to write
        start_new_session=True,
    )

    stdin = process.stdin
    assert stdin is not None

    def tell(pid: int) -> None:
        with suppress(BrokenPipeError):  # it was killed itself, which is no reason to end a flow
            stdin.write(b"%d\n" % pid)

    try:
        yield tell
    finally:
        tell(server_reaper.ALL_IS_WELL)
        stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_DRAIN_SECONDS)


def _start(server: SubprocessASGIServer, tell: Callable[[int], None]) -> None:
    """Start a server that does not hear Ctrl-C.

    It reaches every process of a terminal, and the flow has yet to report its end to the server, which inherits what
    is blocked here.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        server.start()
    except (RuntimeError, httpx.HTTPError, OSError) as error:
        raise PointloomError(
            f"the embedded Prefect server did not start ({one_line(error).rstrip('.')}); set PREFECT_HOME to an empty "
            "folder, or PREFECT_API_URL to a server that runs."
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if server.server_process is not None:
            tell(server.server_process.pid)


def _keep_running(server: SubprocessASGIServer, tell: Callable[[int], None], over: threading.Event) -> None:
    """Start the server again, at the same address, whenever it has ended before the flow.

    SIGTERM to a process group, as `timeout` and Slurm send it, ends it while the flow has yet to report its end, and
    would try to for minutes; a server that runs out of memory would end a training of hours.
    """
    while not over.wait(_LOOK_SECONDS):
        process = server.server_process
        if process is not None and process.poll() is not None:
            server.running = False
            # It did not start in time, as on a full disk: the next look tries again.
            with suppress(PointloomError):
                _start(server, tell)
