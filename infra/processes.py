"""Processes that outlive the command that started them, and how they are found again.

A service is known by its pid, its creation time and a mark in its environment. A pid alone is not enough:
after a reboot or a crash it may belong to another process. The mark also finds what a service has left behind.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "POINTLOOM_SERVICES"
# The kernel's boot time, which creation times count from, moves a little when the clock is set.
_CLOCK_SECONDS = 2.0
_HEAD_START_SECONDS = 5.0


@dataclass(frozen=True)
class Service:
    """A process that was started.

    Attributes:
        mark: value of MARK in its environment and in that of all it starts; one of its own per `up`.
    """

    name: str
    pid: int
    created: float
    mark: str
    log: str


def start(name: str, command: list[str], environment: dict[str, str], log: Path, mark: str) -> Service:
    """Start a process in a session of its own, so that Ctrl-C in this terminal does not reach it."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env={**environment, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # It is not waited for here; without this Python warns about it at exit.
    process.returncode = 0
    started = psutil.Process(process.pid)
    service = Service(name, process.pid, started.create_time(), mark, str(log))
    # The kernel shows the environment of a new program a moment after Popen has returned.
    deadline = time.monotonic() + _HEAD_START_SECONDS
    while _is_alive(started) and _mark(started) != mark and time.monotonic() < deadline:
        time.sleep(0.01)
    return service


def running(service: Service) -> psutil.Process | None:
    """The service's process, unless it has ended; never somebody else's that was given its pid."""
    try:
        process = psutil.Process(service.pid)
        same = abs(process.create_time() - service.created) < _CLOCK_SECONDS
        return process if same and _mark(process) == service.mark else None
    except psutil.Error:
        return None


def end(service: Service, seconds: float) -> list[int]:
    """End the service and all it started; the pids that had to be killed after `seconds`.

    The service is asked first and its children a little later: a Prefect worker that is asked to end waits
    for its flow runs, and a flow run that is asked ends its own Ray.
    """
    process = running(service)
    if process is None:
        return []
    children, family = _children([process]), {process} | _children([process], recursive=True)
    _ask({process})
    alive = _wait(family, min(_HEAD_START_SECONDS, seconds))
    _ask(alive & children)
    return _kill(_wait(alive, seconds))


def end_marked(mark: str, seconds: float) -> list[int]:
    """End every process that carries the mark, also where its parent is gone; the pids that were killed."""
    marked = {p for p in psutil.process_iter() if _mark(p) == mark and p.pid != os.getpid()}
    family = marked | _children(marked, recursive=True)
    _ask(family)
    return _kill(_wait(family, seconds))


def _ask(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        # psutil checks once more that the pid was not given to another process.
        with suppress(psutil.Error):
            process.terminate()


def _kill(processes: set[psutil.Process]) -> list[int]:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    _wait(processes, _HEAD_START_SECONDS)
    return sorted(process.pid for process in processes)


def _wait(processes: set[psutil.Process], seconds: float) -> set[psutil.Process]:
    """Those still alive after `seconds`, or earlier once none is."""
    deadline = time.monotonic() + seconds
    while (alive := {p for p in processes if _is_alive(p)}) and time.monotonic() < deadline:
        time.sleep(0.1)
    return alive


def _is_alive(process: psutil.Process) -> bool:
    try:
        # A zombie has ended and only waits for its parent to notice.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _children(processes: Iterable[psutil.Process], recursive: bool = False) -> set[psutil.Process]:
    found: set[psutil.Process] = set()
    for process in processes:
        with suppress(psutil.Error):
            found |= set(process.children(recursive=recursive))
    return found


def _mark(process: psutil.Process) -> str | None:
    """The mark in the environment of a process; None without one and for other users' processes."""
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None
