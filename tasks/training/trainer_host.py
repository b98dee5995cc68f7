"""The actor that Ray Train runs in; a module of its own, since the actor's process imports it, without Prefect."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from tasks.training.failures import Failure, failure_of
from tasks.training.job import TrainJob

# Between two exchanges of the Ray workers lies a micro-batch, or the reading of the blocks.
_SILENCE_SECONDS = 600

Loop = Callable[[dict[str, Any]], None]


def train_loop(config: dict[str, Any]) -> None:
    """`worker_loop.train_loop`, which the Ray workers alone import: host and controller start without the network."""
    from tasks.training import worker_loop

    worker_loop.train_loop(config)


class TrainerHost:
    """Runs `TorchTrainer.fit`, so that a training can be ended from outside: by killing this actor.

    Ray Train has no call for that. It starts a controller, and the controller starts the Ray workers; each of them
    ends with the process that has started it.
    """

    def fit(self, loop: Loop, config: dict[str, Any], limit_s: float, folder: str) -> Failure | None:
        """Train; why Ray Train gave up, None where it did not.

        Args:
            loop: what each Ray worker runs.
            config: its argument; `job` is the TrainJob, `run` the TrainRun.
            limit_s: how long Ray workers may take to start.
            folder: local, for Ray Train's own notes. It is deleted afterwards: `run` keeps the epochs.
        """
        try:
            _trainer(loop, config, limit_s, folder).fit()
        except ray.train.WorkerGroupError as error:
            return failure_of(next(iter(error.worker_failures.values()), error))
        except ray.train.ControllerError as error:
            return failure_of(error.controller_failure)
        except ray.train.TrainingFailedError as error:
            return failure_of(error)
        return None


def _trainer(loop: Loop, config: dict[str, Any], limit_s: float, folder: str) -> TorchTrainer:
    job: TrainJob = config["job"]
    start_s = float(os.environ.get("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "60"))
    return TorchTrainer(
        loop,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if job.gpu else "gloo", timeout_s=_SILENCE_SECONDS),
        scaling_config=ScalingConfig(
            # A range is elastic: the training goes on with the Ray workers that a lost node leaves.
            # (The annotation is Tune's, which has no pair; Ray Train accepts one.)
            num_workers=(job.min_workers, job.num_workers) if job.min_workers else job.num_workers,  # type: ignore[arg-type]
            use_gpu=job.gpu,
            resources_per_worker={"CPU": job.cpus_per_worker, **({"GPU": 1} if job.gpu else {})},
        ),
        run_config=RunConfig(
            name=config["run"].name,
            storage_path=folder,
            # (The annotation is Tune's, which has no controller; Ray Train has one.)
            failure_config=FailureConfig(
                max_failures=0,
                controller_failure_limit=math.ceil(limit_s / start_s),  # type: ignore[call-arg]
            ),
        ),
    )
