"""The one private name of Ray that Pointloom uses: how the processes of a local Ray are started.

SIGTERM to a process group, as `timeout` and Slurm send it, reaches Ray's processes beside the driver. A driver whose
object store is gone is ended by Ray at once, with status 1 and without its last reports. Processes in groups of their
own end by the driver, or with it. `ray.init` has no setting for that (ray-project/ray#17308 is about the signal's other
half: Ray replaces the driver's handler). tests/tasks/runtime/test_ray_processes.py fails when Ray changes this.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial


@contextmanager
def own_process_groups() -> Iterator[None]:
    """Ray processes started meanwhile get process groups of their own; where Ray lacks the name, nothing changes."""
    try:
        from ray._private import services

        popen = services.ConsolePopen
    except (ImportError, AttributeError):
        logging.getLogger(__name__).warning(
            "This version of Ray starts its processes in another way: a signal to the process group ends them too."
        )
        yield
        return
    services.ConsolePopen = partial(popen, process_group=0)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        services.ConsolePopen = popen  # type: ignore[misc]
