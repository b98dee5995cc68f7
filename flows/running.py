"""Running a flow here and now, as the command line and the demo do."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import BaseModel

from pointcloud.errors import PointloomError

_DRAIN_SECONDS = 20


def run(check: Callable[[Any], None], flow: Callable[[Any], Any], parameters: BaseModel) -> Any:
    """Check the parameters, then run the flow.

    The check comes before any server, so that a wrong path is one sentence at once.

    Raises:
        PointloomError: as `check` and the flow raise it.
    """
    check(parameters)
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


@contextmanager
def prefect_api() -> Iterator[None]:
    """The Prefect server that PREFECT_API_URL or the profile names, or an embedded one for the time of the block.

    Prefect would start the embedded one by itself, but then once more in every process of a process pool.
    """
    if PREFECT_API_URL.value():
        yield
        return
    logging.getLogger("prefect.flow_runs").addFilter(_without_link)
    server = SubprocessASGIServer()
    # Ctrl-C reaches every process of a terminal, and the flow has yet to report its end to the server: the server
    # inherits that it does not hear it. Here it is heard again once the server runs.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        server.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            yield
    finally:
        # Logs and events travel in the background; without the server they would be tried again and again.
        APILogWorker.drain_all(timeout=_DRAIN_SECONDS)
        EventsWorker.drain_all(timeout=_DRAIN_SECONDS)
        server.stop()
