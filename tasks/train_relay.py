"""What Ray workers tell of a training, brought to the log, the Prefect UI and the trackers by the driver."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pointcloud import storage
from tasks.train_loop import TrainJob
from tasks.training_watch import TrainingWatch, scalars, trackers
from tasks.watching import Progress

_POLL_SECONDS = 0.5


@contextmanager
def relayed_epochs(
    job: TrainJob, run: str, names: tuple[str, ...], logger: Any, stopped: list[str]
) -> Iterator[Queue]:
    """A Ray queue whose epochs become log lines, artifacts of this task run, TensorBoard and MLflow records.

    The Ray workers need no way to any of them then. What cannot be shown is said in the log; the training goes on.

    Args:
        job: what is trained.
        run: name of this training among those of the same checkpoint folder.
        names: of the classes.
        logger: of the task run.
        stopped: what `train_loop` says of a stop is appended.
    """
    # On the driver's own node: no other that is lost takes it along, and the training with it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    progress = Progress(f"training-{job.key()}", f"Epochs of {job.out}", job.training.epochs)
    watch = TrainingWatch(job.key(), f"Training of {job.out}", names)
    recorders = trackers(storage.join(job.out, "tensorboard", run), run, job.training.to_dict(), logger)
    ended = threading.Event()

    def show(told: dict[str, Any]) -> None:
        epoch = told["epoch"]
        left = epoch["seconds"] * (job.training.epochs - epoch["epoch"])
        logger.info(
            "epoch %d/%d: loss %.3f, validation mIoU %.3f, about %.0f s left",
            epoch["epoch"], job.training.epochs, epoch["train_loss"], epoch["val_miou"] or 0.0, left,
        )  # fmt: skip
        progress.step(epoch["epoch"])
        watch.add(epoch, told["confusion"])
        for recorder in recorders:
            recorder.add(epoch["epoch"], scalars(epoch, names))

    def relay() -> None:
        while not ended.is_set() or not queue.empty():
            try:
                told = queue.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            if "stopped" in told:
                stopped.append(told["stopped"])
                continue
            try:
                show(told)
            except Exception as error:  # a server that is away for a moment must not end a night's training
                logger.warning("epoch %d could not be shown everywhere (%s)", told["epoch"]["epoch"], error)

    # The run's context goes along, so that the artifacts belong to this task run.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(relay,), daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        ended.set()
        thread.join(timeout=30)
        queue.shutdown(force=True)
        try:
            watch.show()
            for recorder in recorders:
                recorder.close()
        except Exception as error:
            logger.warning("the last epoch could not be shown everywhere (%s)", error)
