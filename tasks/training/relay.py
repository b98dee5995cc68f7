"""What Ray workers report of a training; the driver passes it on to the log, the Prefect UI and the trackers."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
import ray.exceptions
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pointcloud.storage import files
from tasks.prefect_ui.scan_states import Progress
from tasks.prefect_ui.training_watch import TrainingWatch
from tasks.training.epochs_kept import TrainRun
from tasks.training.failures import Failure
from tasks.training.job import TrainJob
from tasks.training.recorder import END_SECONDS, Recorder, recorders

_POLL_SECONDS = 0.5
_DRAIN_SECONDS = 30.0
_CATCH_UP_SECONDS = 10.0


def on_this_node() -> dict[str, Any]:
    """Options of an actor that needs no CPU and lives on this process's node: no other lost node takes it along."""
    node = ray.get_runtime_context().get_node_id()
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


class Relay:
    """Takes what `train_loop` puts into a Ray queue.

    Args:
        queue: the Ray queue.
        num_epochs: of the whole training.
        logger: of the task run.
        watch, progress: in the Prefect UI.
        recorders: TensorBoard, MLflow.

    Attributes:
        heard: when something last came from the Ray workers, as `time.monotonic` has it.
        failures: why Ray workers ended, in the order in which they said so.
    """

    def __init__(
        self,
        queue: Queue,
        num_epochs: int,
        logger: Any,
        watch: TrainingWatch,
        progress: Progress,
        recorders: list[Recorder],
    ) -> None:
        self.queue, self.heard = queue, time.monotonic()
        self.failures: list[Failure] = []
        self._caught_up = threading.Event()
        self._num_epochs, self._logger = num_epochs, logger
        self._watch, self._progress, self._recorders = watch, progress, recorders

    def run(self, ended: threading.Event) -> None:
        """Pass on what arrives until `ended` is set and the queue is empty."""
        while True:
            last = ended.is_set()
            try:
                message = self.queue.get(timeout=_POLL_SECONDS)
            except Empty:
                if last:
                    return
                continue
            except Exception as error:  # the queue, or Ray itself, is gone  # noqa: BLE001
                if not last:
                    self._logger.warning(
                        "nothing more is received from the Ray workers (%s)", str(error).split("\n")[0]
                    )
                return
            self.heard = time.monotonic()
            try:
                self._handle(message)
            except Exception as error:  # a server that does not answer for a while must not end the training  # noqa: BLE001
                self._logger.warning("an epoch could not be shown in Prefect (%s)", error)

    def _handle(self, message: dict[str, Any]) -> None:
        if "log" in message:
            rank, level, text = message["log"]
            self._logger.log(level, "Ray worker %d: %s", rank, text)
        elif "history" in message:
            self._show(message["history"], message["confusion"])
        elif "failure" in message:
            self.failures.append(message["failure"])
        elif "caught up" in message:
            self._caught_up.set()

    def catch_up(self) -> None:
        """Wait until all that was in the queue before this call has been taken."""
        self._caught_up.clear()
        with suppress(ray.exceptions.RayError):  # the queue was lost: nothing more comes
            self.queue.put({"caught up": True}, timeout=_CATCH_UP_SECONDS)
            self._caught_up.wait(_CATCH_UP_SECONDS)

    def _show(self, history: list[dict[str, Any]], confusion: list[list[int]]) -> None:
        epoch = history[-1]
        left = epoch["seconds"] * (self._num_epochs - epoch["epoch"])
        self._logger.info(
            "epoch %d/%d: loss %.3f, validation mIoU %.3f, about %.0f s left",
            epoch["epoch"], self._num_epochs, epoch["train_loss"], epoch["val_miou"] or 0.0, left,
        )  # fmt: skip
        for recorder in self._recorders:
            recorder.record(history)
        self._progress.step(epoch["epoch"])
        self._watch.set(history, confusion)

    def close(self, failed: bool) -> None:
        """Bring everything up to date, and close what records; the training has ended, well or not."""
        for recorder in self._recorders:
            recorder.end(failed)
        try:
            self._watch.show()
        except Exception as error:  # noqa: BLE001
            self._logger.warning("the last epoch could not be shown in Prefect (%s)", error)
        until = time.monotonic() + END_SECONDS
        for recorder in self._recorders:
            recorder.wait(until)


@contextmanager
def relayed(job: TrainJob, run: TrainRun, names: tuple[str, ...], logger: Any) -> Iterator[Relay]:
    """A relay whose epochs become log lines, artifacts of this task run, TensorBoard and MLflow records.

    The Ray workers need no way to any of them then. What cannot be shown is said in the log; the training goes on.

    Args:
        job: what is trained.
        run: names this training among those of the same checkpoint folder.
        names: of the classes.
        logger: of the task run.
    """
    queue = Queue(actor_options=on_this_node())
    relay = Relay(
        queue, job.training.epochs, logger,
        TrainingWatch(job.key(), f"Training of {job.out}", names),
        Progress(f"training-{job.key()}", f"Epochs of {job.out}", job.training.epochs),
        recorders(files.join(job.out, "tensorboard", run.name), run.name, job.training.to_dict(), names, logger),
    )  # fmt: skip
    ended, failed = threading.Event(), True
    # The run's context goes along, so that the artifacts belong to this task run.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(relay.run, ended), daemon=True)
    thread.start()
    try:
        yield relay
        failed = False
    finally:
        ended.set()
        thread.join(timeout=_DRAIN_SECONDS)
        with suppress(Exception):  # it may be gone already
            queue.shutdown(force=True)
        relay.close(failed)
