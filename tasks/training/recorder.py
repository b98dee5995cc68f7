"""Sends epochs to the trackers, each from a thread of its own: a slow or lost tracker delays nothing else."""

from __future__ import annotations

import contextvars
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from tasks.prefect_ui.training_watch import scalars
from tasks.training.trackers import MLflowRun, TensorBoardFiles

END_SECONDS = 60.0
"""Seconds that a training waits for its trackers when it has ended."""
_REST = 10.0
"""Pause before the next attempt, in multiples of the time that the failed one took: a silent server costs little."""


class Recorder:
    """Brings epochs to one tracker, in a thread of its own.

    What it does not take is said once, and tried again with later epochs and at the end.

    Args:
        kind: of tracker.
        start: makes it; what that raises is said, and nothing is recorded there.
        names: of the classes.
        logger: of the task run.
        clock: seconds, by which the pause after a failed attempt is measured.
    """

    def __init__(
        self, kind: type[TensorBoardFiles] | type[MLflowRun], start: Callable[[], TensorBoardFiles | MLflowRun],
        names: Sequence[str], logger: Any, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._kind, self._start, self._names, self._logger = kind, start, names, logger
        self._history: Sequence[dict[str, Any]] = ()
        self._done: int | None = None
        self._rest_until = 0.0
        self._ended, self._failed, self._away = False, False, False
        self._news = threading.Event()
        # The run's context goes along, so that the log lines belong to this task run.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._run,), name=kind.called, daemon=True)
        self._thread.start()

    def record(self, history: Sequence[dict[str, Any]]) -> None:
        """The records of all epochs so far, as `TrainState` keeps them; returns at once."""
        if self._done is None:
            self._done = 0 if self._kind.starts_anew else len(history) - 1
        self._history = list(history)
        self._news.set()

    def end(self, failed: bool) -> None:
        """Note that no epoch follows; returns at once."""
        self._failed, self._ended = failed, True
        self._news.set()

    def wait(self, until: float) -> None:
        """Wait until all is recorded, or until a time as `time.monotonic` has it: the rest is left out then."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive() and not self._away:
            self._away = True
            self._logger.warning(
                "%s does not answer; the last epochs may be missing there, and nowhere else",
                self._kind.called,
            )

    def _run(self) -> None:
        try:
            tracker = self._start()
        except ModuleNotFoundError as error:
            self._logger.warning(
                "nothing is recorded in %s (%s); pip install %s", self._kind.called, error, self._kind.package
            )
            return
        except Exception as error:  # any error of its server or client; the training needs neither  # noqa: BLE001
            self._logger.warning(
                "nothing is recorded in %s: it accepts no run (%s)", self._kind.called, _line(error)
            )
            return
        last = False
        while not last:
            self._news.wait()
            self._news.clear()
            last = self._ended
            if last or self._clock() >= self._rest_until:
                self._try(lambda: self._bring(tracker))
        self._try(lambda: tracker.close(self._failed))

    def _bring(self, tracker: TensorBoardFiles | MLflowRun) -> None:
        # An epoch is recorded once, also when it was lost and done again.
        for epoch in self._history[self._done or 0 :]:
            tracker.add(epoch["epoch"], scalars(epoch, self._names))
            self._done = epoch["epoch"]
        if self._away:
            self._away = False
            self._logger.info("%s answers again, and has what it missed", self._kind.called)

    def _try(self, do: Callable[[], None]) -> None:
        started = self._clock()
        try:
            do()
        except Exception as error:  # noqa: BLE001
            now = self._clock()
            self._rest_until = now + _REST * (now - started)
            if not self._away:
                self._away = True
                whole = (
                    "is whole without it"
                    if self._ended
                    else "goes on, and what is missing there is tried again"
                )
                self._logger.warning(
                    "%s takes no more epochs (%s); the training %s", self._kind.called, _line(error), whole
                )


def recorders(
    uri: str, name: str, settings: dict[str, Any], names: Sequence[str], logger: Any
) -> list[Recorder]:
    """The recorders of a training beside Prefect; those that cannot be used are named in the log.

    Args:
        uri: for TensorBoard files.
        name: of a run in MLflow, which is used where MLFLOW_TRACKING_URI is set.
        settings: the parameters of that run.
        names: of the classes.
        logger: of the task run.
    """
    found = [Recorder(TensorBoardFiles, lambda: TensorBoardFiles(uri), names, logger)]
    if os.environ.get("MLFLOW_TRACKING_URI"):
        found.append(Recorder(MLflowRun, lambda: MLflowRun(name, settings), names, logger))
    return found


def _line(error: Exception) -> str:
    """An error of many lines in one."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")[:300]
