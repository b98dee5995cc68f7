"""Ray as the code under test starts it, not the one that other tests share."""

from __future__ import annotations

from tests.support.ray_cluster import end_of_the_shared_ray, no_ray_cluster, ray_cluster

__all__ = ["end_of_the_shared_ray", "no_ray_cluster", "ray_cluster"]
