"""Ray for the time of one task: the cluster that RAY_ADDRESS names, or a bounded one on this machine."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import ray
from ray._private import services
from ray.autoscaler.sdk import request_resources

from pointcloud.errors import PointloomError, one_line

# Items are paths and small records; blocks are read by the Ray workers themselves.
_OBJECT_STORE_BYTES = 300_000_000
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray writes a token into the home folder and asks every later cluster for it, unless the mode is named.
    "RAY_AUTH_MODE": "disabled",
    # Ray Train looks at its workers this often; an epoch of a small training takes less than the default 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Relative paths in parameters count from where the flow runs, in the Ray workers too.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "OMP_WAIT_POLICY": "PASSIVE",
    # glibc would keep the tail's tensors of 8 to 29 MB: a training step peaks 60 MB lower when they go back.
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    "MALLOC_TRIM_THRESHOLD_": "33554432",
}
# On this machine alone: Ray's C++ side calls it an error on the terminal that Ray Data's actors may be restarted.
_QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal"}


@contextmanager
def ray_session(num_cpus: int) -> Iterator[None]:
    """Connect to Ray; a local cluster has `num_cpus` CPUs and ends with the block.

    Inside another session this is that one: trainings of a study share a cluster.

    Raises:
        PointloomError: RAY_ADDRESS names a cluster that does not answer.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
    # The flow's own log lines say what happens; Ray Data's plans stay in its log files.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    on_termination = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            ray.init(address=address, logging_level=logging.WARNING)
        else:
            with _process_groups_of_their_own():
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    logging_level=logging.WARNING,
                    log_to_driver=bool(os.environ.get("POINTLOOM_RAY_LOGS")),
                )
    except Exception as error:  # a node that does not start in time is a bare one
        reason = one_line(error)
        raise PointloomError(
            f"no Ray cluster answers at {address} ({reason}); check RAY_ADDRESS or unset it."
            if address
            else f"Ray did not start on this machine ({reason}); end what else keeps it busy, and run again."
        ) from error
    if threading.current_thread() is threading.main_thread():
        # Ray puts its own in place, after which a process ends in abort() and leaves Prefect's server behind.
        signal.signal(signal.SIGTERM, on_termination)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _process_groups_of_their_own() -> Iterator[None]:
    """Ray's local processes end by the driver, or with it, and not beside it.

    SIGTERM to a process group, as `timeout` and Slurm send it, would reach them too; a driver whose object store
    goes first is ended by Ray at once, with status 1 and whatever was left to do undone. Ray has no setting for it.
    """
    popen = services.ConsolePopen
    services.ConsolePopen = partial(popen, process_group=0)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        services.ConsolePopen = popen  # type: ignore[misc]


def usable_cpus() -> int:
    """CPUs this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_POLL_SECONDS = 1.0


def await_room(num_workers: int, resources: dict[str, int], limit_s: float) -> None:
    """Wait until the cluster that Ray is connected to has what is needed, an autoscaled one being asked to grow.

    CPUs and GPUs that others use now count as room: Ray Train waits for them.

    Args:
        num_workers: Ray workers, each on one node.
        resources: "CPU" and "GPU" -> how many of them each needs.
        limit_s: seconds to wait.

    Raises:
        PointloomError: the cluster is still too small after the limit.
    """
    needed = {name: count for name, count in resources.items() if count}
    deadline = time.monotonic() + limit_s
    if _room(needed) >= num_workers:
        return
    request_resources(bundles=[needed] * num_workers)
    try:
        while (room := _room(needed)) < num_workers:
            if time.monotonic() >= deadline:
                each = " and ".join(f"{count} {name}(s)" for name, count in needed.items())
                raise PointloomError(
                    f"{num_workers} Ray workers with {each} each were asked for and after {limit_s:.0f} s the Ray "
                    f"cluster has room for {room}; use fewer, or a larger cluster."
                )
            time.sleep(_POLL_SECONDS)
    finally:
        request_resources(bundles=[])


def _room(needed: dict[str, int]) -> int:
    """Ray workers that the nodes alive can hold."""
    rooms: list[int] = [
        min(int(node["Resources"].get(name, 0)) // count for name, count in needed.items())
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sum(rooms)
