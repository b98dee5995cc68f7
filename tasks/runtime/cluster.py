"""Ray for the time of one task: the cluster that RAY_ADDRESS names, or a bounded one on this machine."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import ray
from ray.autoscaler.sdk import request_resources

from pointcloud.errors import PointloomError, one_line
from tasks.runtime.environment import RAY, THREADS, set_defaults, without_proxy
from tasks.runtime.ray_address import check_ray_address
from tasks.runtime.ray_folder import short_ray_folder
from tasks.runtime.ray_processes import own_process_groups

# Items are paths and small records; blocks are read by the Ray workers themselves.
_OBJECT_STORE_BYTES = 300_000_000
# Only for a Ray on this machine: its C++ processes write messages to the terminal that a user need not read.
_QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal"}
_DEFECTS = (
    TypeError,
    AttributeError,
    LookupError,
)  # an error of a program, which advice about the cluster does not help


@contextmanager
def ray_session(num_cpus: int) -> Iterator[None]:
    """Connect to Ray; a local cluster has `num_cpus` CPUs and ends with the context.

    Inside another session this is that one: trainings of a study share a cluster.

    Raises:
        PointloomError: RAY_ADDRESS names a cluster that does not answer, or Ray does not start on this machine.
    """
    if ray.is_initialized():
        yield
        return
    set_defaults(THREADS, RAY)
    os.environ.update(without_proxy(os.environ))
    address = os.environ.get("RAY_ADDRESS")
    on_termination = signal.getsignal(signal.SIGTERM)
    with nullcontext() if address else short_ray_folder():
        if address:
            _connect(address)
        else:
            _start(num_cpus)
        if threading.current_thread() is threading.main_thread():
            # Ray puts its own in place, after which a process ends in abort() and leaves Prefect's server behind.
            signal.signal(signal.SIGTERM, on_termination)
        try:
            yield
        finally:
            ray.shutdown()


def _connect(address: str) -> None:
    check_ray_address(address)
    try:
        ray.init(address=address, logging_level=logging.WARNING)
    except _DEFECTS:
        raise
    except Exception as error:  # Ray has no class of error for it
        raise PointloomError(
            f"no Ray cluster answers at {address} ({one_line(error)}); check RAY_ADDRESS or unset it."
        ) from error


def _start(num_cpus: int) -> None:
    set_defaults(_QUIET)
    try:
        with own_process_groups():
            ray.init(
                address="local",
                num_cpus=num_cpus,
                object_store_memory=_OBJECT_STORE_BYTES,
                # A dozen processes and seconds of two cores; Prefect's pages show the run.
                include_dashboard=False,
                logging_level=logging.WARNING,
                log_to_driver=bool(os.environ.get("POINTLOOM_RAY_LOGS")),
            )
    except _DEFECTS:
        raise
    except Exception as error:  # a node that does not start in time is a bare one
        raise PointloomError(
            f"Ray did not start on this machine ({one_line(error)}); end other work that keeps it busy, and run again."
        ) from error


_POLL_SECONDS = 1.0


def await_room(num_workers: int, resources: dict[str, int], limit_s: float) -> None:
    """Wait until the connected Ray cluster has the resources needed; an autoscaled one is asked to grow.

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
