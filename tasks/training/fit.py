"""Ray Train's part of a training: lost Ray workers are replaced, and what cannot continue ends in one sentence."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

import ray
import ray.exceptions

from pointcloud.errors import PointloomError
from pointcloud.storage.lock import Lock
from tasks.training.epochs_kept import TrainRun
from tasks.training.failures import Failure, Stopped, failure_of, gravest
from tasks.training.job import TrainJob
from tasks.training.relay import Relay, on_this_node
from tasks.training.trainer_host import TrainerHost, train_loop

# Ray workers that are lost one after the other with no epoch done in between.
_MAX_LOST = 2
# Processes start and import torch, on a busy machine too.
_START_SECONDS = 120.0
_POLL_SECONDS = 0.5


def fit_to_end(job: TrainJob, run: TrainRun, relay: Relay, logger: Any, lock: Lock | None = None) -> None:
    """Train to the last epoch, from the newest one kept.

    The retry is here and not Ray Train's, which counts lost Ray workers over a whole training: a night of many
    epochs may lose one now and then.

    Raises:
        Stopped: another try would end the same way.
        PointloomError: no Ray worker is up for too long, they are lost again and again, or the disk is full.
    """
    lost = 0
    run.start()
    while True:
        before = run.epochs_done()
        failure = _fit_once(job, run, relay, lock)
        if failure is None:
            return
        done = run.epochs_done()
        if failure.kind == "final":
            raise Stopped(failure.reason)
        if failure.kind == "no space":
            raise PointloomError(
                f"epoch {done + 1} of the training could not be kept in {job.out!r}: {failure.reason}; make room and "
                f"run again, it goes on {f'from epoch {done}' if done else 'from the start'}."
            )
        lost = lost + 1 if done == before else 1
        if lost > _MAX_LOST:
            raise PointloomError(
                f"Ray workers were lost {lost} times in epoch {done + 1} of the training of {job.out!r}, the last time "
                f"because {failure.reason}; correct that and run again, it goes on from there."
            )
        logger.warning(
            "a Ray worker was lost in epoch %d (%s); another takes its place", done + 1, failure.reason
        )


def _fit_once(job: TrainJob, run: TrainRun, relay: Relay, lock: Lock | None) -> Failure | None:
    """Train until the last epoch or the first failure; None where the training is at its end."""
    limit = job.wait_s + _START_SECONDS
    relay.failures.clear()
    relay.heard = time.monotonic()
    config = {"job": job, "run": run, "queue": relay.queue, "lock": lock}
    with tempfile.TemporaryDirectory(prefix="pointloom-ray-train-") as folder:
        host: Any = ray.remote(TrainerHost).options(**on_this_node(), runtime_env=_environment()).remote()
        try:
            ended = host.fit.remote(train_loop, config, limit, folder)
            while not ray.wait([ended], timeout=0)[0]:
                # Not in `ray.wait`: a signal that arrives there ends as a SystemError instead of the flow's own exit.
                time.sleep(_POLL_SECONDS)
                # Ray Train itself would wait without end for room that others have.
                if time.monotonic() - relay.heard > limit:
                    raise PointloomError(
                        f"no Ray worker of the training of {job.out!r} was up for {limit:.0f} s, though "
                        f"{job.workers_needed} with {job.cpus_per_worker} CPU(s) each fit into the Ray cluster; end "
                        "what else runs there, or choose a larger wait_s, and run again, it goes on from the last "
                        "epoch."
                    )
            failure: Failure | None = ray.get(ended)
        except ray.exceptions.RayError as error:  # the host's process was lost, or Ray Train could not start
            failure = failure_of(error)
        finally:
            ray.kill(host)
    if failure is None:
        return None
    relay.catch_up()
    return gravest([*relay.failures, failure])


def _environment() -> dict[str, Any]:
    """Ray Train's settings in this process, for the actor: it may be started by a Ray that does not have them."""
    names = [name for name in os.environ if name.startswith(("RAY_TRAIN_", "RAY_CHDIR_"))]
    return {"env_vars": {name: os.environ[name] for name in names}}
