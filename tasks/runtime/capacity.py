"""Whether a Ray cluster has room for what is asked of it: said after a limit, instead of waiting for ever."""

from __future__ import annotations

import time

import ray
from ray.autoscaler.sdk import request_resources

from pointcloud.errors import PointloomError

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
    return sum(
        min(int(node["Resources"].get(name, 0)) // count for name, count in needed.items())
        for node in ray.nodes()
        if node["Alive"]
    )
