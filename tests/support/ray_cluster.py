"""The Ray cluster that the tests of one process share, since each start takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest


@pytest.fixture(scope="session")
def _shared_ray() -> Iterator[ExitStack]:
    with ExitStack() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def ray_cluster(_shared_ray: ExitStack) -> None:
    """A Ray with two CPUs that the flows of a module find running, as on a cluster; the next module finds it too."""
    import ray  # most tests do without

    from tasks.runtime.cluster import ray_session

    if not ray.is_initialized():
        _shared_ray.enter_context(ray_session(num_cpus=2))


@pytest.fixture(scope="module")
def no_ray_cluster(_shared_ray: ExitStack) -> None:
    """No Ray runs, for tests whose code starts and ends one."""
    _shared_ray.close()
