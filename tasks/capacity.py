"""Whether a Ray cluster has room for what is asked of it: said after a limit, instead of waiting for ever."""

from __future__ import annotations

import time

import ray
from ray.autoscaler.sdk import request_resources

from pointcloud.errors import PointloomError

_POLL_SECONDS = 1.0


def await_room(num_workers: int, cpus_per_worker: int, limit_s: float) -> None:
    """Wait until the cluster that Ray is connected to has the CPUs, an autoscaled one being asked to grow.

    CPUs that others use now count as room: Ray Train waits for them.

    Args:
        num_workers: Ray workers, each on one node.
        cpus_per_worker: CPUs of each.
        limit_s: seconds to wait.

    Raises:
        PointloomError: the cluster is still too small after the limit.
    """
    deadline = time.monotonic() + limit_s
    if _room(cpus_per_worker) >= num_workers:
        return
    request_resources(bundles=[{"CPU": cpus_per_worker}] * num_workers)
    try:
        while (room := _room(cpus_per_worker)) < num_workers:
            if time.monotonic() >= deadline:
                raise PointloomError(
                    f"{num_workers} Ray workers with {cpus_per_worker} CPU(s) each were asked for and after "
                    f"{limit_s:.0f} s the Ray cluster has room for {room}; use fewer, or a larger cluster."
                )
            time.sleep(_POLL_SECONDS)
    finally:
        request_resources(bundles=[])


def _room(cpus_per_worker: int) -> int:
    """Ray workers that the nodes alive can hold."""
    return sum(
        int(node["Resources"].get("CPU", 0)) // cpus_per_worker for node in ray.nodes() if node["Alive"]
    )
