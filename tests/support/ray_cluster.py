"""The Ray cluster that the tests of one process share, since each start takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import ray

from tasks.runtime.cluster import ray_session

_CLUSTER = ExitStack()


@pytest.fixture(scope="session", autouse=True)
def end_of_the_shared_ray() -> Iterator[None]:
    yield
    _CLUSTER.close()


@pytest.fixture(scope="module")
def ray_cluster() -> None:
    """A Ray with two CPUs that the flows of a module find running, as on a cluster; the next module finds it too."""
    if not ray.is_initialized():
        _CLUSTER.enter_context(ray_session(num_cpus=2))


@pytest.fixture(scope="module")
def no_ray_cluster() -> None:
    """No Ray runs, for tests whose code starts and ends one."""
    _CLUSTER.close()
