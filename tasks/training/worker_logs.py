"""Log lines of Ray workers, sent to the driver, which alone is connected to Prefect."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_OURS = ("models", "pointcloud", "tasks")
_MAX_LENGTH = 2000


class QueueHandler(logging.Handler):
    """Puts {"log": (rank, level, text)} into a queue for lines of our packages and for warnings of others.

    Args:
        queue: a Ray queue.
        rank: of this Ray worker.
    """

    def __init__(self, queue: Any, rank: int) -> None:
        super().__init__(logging.INFO)
        self._queue, self._rank = queue, rank
        self._sending = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is for the log of the flow run."""
        package = record.name.partition(".")[0]
        # Ray's own lines are in Ray's files, and sending one may give rise to the next.
        return package in _OURS or (package != "ray" and record.levelno >= logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record to the driver."""
        if getattr(self._sending, "now", False):
            return
        self._sending.now = True
        try:
            text = " ".join(record.getMessage().split())[:_MAX_LENGTH]
            self._queue.put({"log": (self._rank, record.levelno, text)})
        except Exception:  # logging never ends a training  # noqa: BLE001
            self.handleError(record)
        finally:
            self._sending.now = False


@contextmanager
def logs_to(queue: Any, rank: int) -> Iterator[None]:
    """While the `with` body runs, log lines and Python's warnings go to the queue."""
    handler, root = QueueHandler(queue, rank), logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in _OURS}
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(True)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        logging.captureWarnings(False)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
