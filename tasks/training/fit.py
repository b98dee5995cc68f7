"""Ray Train's part of a training: lost Ray workers are replaced, and what cannot go on ends in one sentence."""

from __future__ import annotations

import errno
import math
import os
import signal
import threading
import time
from typing import Any

import ray.exceptions
import ray.train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.state import list_actors

from pointcloud.errors import PointloomError
from pointcloud.storage import files
from tasks.training.epochs_kept import TrainRun
from tasks.training.relay import Relay
from tasks.training.worker_loop import Stopped, TrainJob, train_loop

# Ray workers that are lost one after the other with no epoch done in between.
_MAX_LOST = 2
# Processes start and import torch, on a busy machine too.
_START_SECONDS = 120.0
# Between two exchanges of the Ray workers lies a part of a step, or the reading of the blocks.
_SILENCE_SECONDS = 600
_END_SECONDS = 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def fit_to_end(job: TrainJob, run: TrainRun, relay: Relay, logger: Any) -> None:
    """Train to the last epoch, from the last one kept.

    The retry is here and not Ray Train's, which counts lost Ray workers over a whole training: a night of many
    epochs may lose one now and then.

    Raises:
        Stopped: what another try cannot change.
        PointloomError: no Ray worker is up for too long, or they are lost again and again.
    """
    lost = 0
    while True:
        before = run.epochs_done()
        try:
            _fit_once(job, run, relay, logger)
            return
        except (ray.train.TrainingFailedError, ray.exceptions.RayError, OSError) as error:
            cause = _cause(error)
        done = run.epochs_done()
        if isinstance(cause, Stopped):
            raise Stopped(str(cause)) from None
        if no_room(cause):
            raise PointloomError(not_kept(done + 1, done, job.out, cause)) from cause
        lost = lost + 1 if done == before else 1
        if lost > _MAX_LOST:
            raise PointloomError(
                f"Ray workers were lost {lost} times in epoch {done + 1} of the training of {job.out!r}, the last time "
                f"because {_reason(cause)}; mend that and run again, it goes on from there."
            ) from cause
        logger.warning(
            "a Ray worker was lost in epoch %d (%s); another takes its place", done + 1, _reason(cause)
        )


def _fit_once(job: TrainJob, run: TrainRun, relay: Relay, logger: Any) -> None:
    trainer = _trainer(job, run, {"job": job, "queue": relay.queue, "resume": run.mend(logger)})
    ended: list[BaseException | None] = []

    def fit() -> None:
        try:
            trainer.fit()
            ended.append(None)
        except BaseException as error:  # it belongs to the thread that waits  # noqa: BLE001
            ended.append(error)

    # In a thread of its own, since Ray Train waits without end for room that others have.
    limit = job.wait_s + _START_SECONDS
    relay.heard = time.monotonic()
    thread = threading.Thread(target=fit, name="Ray Train", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
            if time.monotonic() - relay.heard > limit and not ended:
                raise PointloomError(
                    f"no Ray worker of the training of {job.out!r} was up for {limit:.0f} s, though "
                    f"{job.workers_needed} with {job.cpus_per_worker} CPU(s) each fit into the Ray cluster; end what "
                    "else runs there, or choose a larger wait_s, and run again, it goes on from the last epoch."
                )
    finally:
        if thread.is_alive():
            _end_controller(thread, logger)
    if ended[0] is not None:
        raise ended[0]


def _end_controller(thread: threading.Thread, logger: Any) -> None:
    """End Ray Train's controller, and with it the thread that waits for it.

    Left alone, that thread would call Ray while Ray shuts down, which ends the process, or start another Ray
    afterwards. Ray Train gives no handle; its controller runs beside the driver, so it can be ended as a process.
    """
    job_id = ray.get_runtime_context().get_job_id()
    mine: list[Any] = [("class_name", "=", "TrainController"), ("job_id", "=", job_id)]
    try:
        for actor in list_actors(filters=mine, detail=True, timeout=_END_SECONDS):
            if actor.state != "DEAD" and actor.pid:
                os.kill(actor.pid, signal.SIGKILL)
    except Exception as error:  # what is being said already matters more  # noqa: BLE001
        logger.warning("Ray Train's controller could not be ended (%s)", _reason(error))
    thread.join(_END_SECONDS)


def _trainer(job: TrainJob, run: TrainRun, config: dict[str, Any]) -> TorchTrainer:
    """Which Ray workers, and where their epochs are kept."""
    start_s = float(os.environ.get("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "60"))
    return TorchTrainer(
        train_loop,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if job.gpu else "gloo", timeout_s=_SILENCE_SECONDS),
        scaling_config=ScalingConfig(
            # A range is elastic: the training goes on with the Ray workers that a lost node leaves.
            # (Its type is Tune's, which knows no pair; Ray Train does.)
            num_workers=(job.min_workers, job.num_workers) if job.min_workers else job.num_workers,  # type: ignore[arg-type]
            use_gpu=job.gpu,
            resources_per_worker={"CPU": job.cpus_per_worker, **({"GPU": 1} if job.gpu else {})},
        ),
        run_config=RunConfig(
            name=run.name,
            storage_path=_ray_path(files.join(job.out, "runs")),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            # (Its type is Tune's, which knows no controller; Ray Train does.)
            failure_config=FailureConfig(
                max_failures=0,
                controller_failure_limit=math.ceil((job.wait_s + _START_SECONDS) / start_s),  # type: ignore[call-arg]
            ),
        ),
    )


def _ray_path(uri: str) -> str:
    return files.resolve(uri)[1] if files.is_local(uri) else uri


def no_room(error: BaseException) -> bool:
    """Whether a place that cannot take more is behind an error: trying again at once ends the same way."""
    return getattr(error, "errno", None) in _NO_ROOM or any(
        os.strerror(each) in str(error) for each in _NO_ROOM
    )


def not_kept(epoch: int, done: int, out: str, error: BaseException) -> str:
    """The sentence of an epoch that could not be kept."""
    why = next((os.strerror(each) for each in _NO_ROOM if os.strerror(each) in str(error)), str(error))
    return (
        f"epoch {epoch} of the training could not be kept in {out!r}: {why}; make room and run again, it goes on "
        f"{f'from epoch {done}' if done else 'from the start'}."
    )


def _cause(error: BaseException) -> BaseException:
    """What a Ray worker or Ray's controller raised: a sentence for the user where one of them has one."""
    causes: list[BaseException] = [
        getattr(each, "_base_exc", each) for each in getattr(error, "worker_failures", {}).values()
    ]
    causes += [getattr(error, "controller_failure", error)]
    return next(
        (c for c in causes if isinstance(c, PointloomError)),
        next((c for c in causes if no_room(c)), causes[0]),
    )


def _reason(error: BaseException) -> str:
    """An error of many lines in one: its last says what it was."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[0] if isinstance(error, PointloomError) else f"{type(error).__name__}: {lines[-1].strip()}"
    return text.rstrip(".")[:300]
