"""The settings of Prefect, Ray and OpenMP that every process of Pointloom runs with, in one place.

What the user has set wins, but for the proxy: it never sees requests to this machine. Set them before Prefect, Ray or
torch is imported, which read some of them then.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

import psutil

PREFECT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # The embedded server starts within 15 s on a free machine; Prefect gives it 20.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}
THREADS = {
    # Threads are counted in the jobs; OpenMP threads that wait would only take CPUs from them.
    "OMP_WAIT_POLICY": "PASSIVE",
}
RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray writes a token into the home folder and asks every later cluster for it, unless the mode is named.
    "RAY_AUTH_MODE": "disabled",
    # Ray Train looks at its workers this often; an epoch of a small training takes less than the default 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray Train would move its workers to a folder of its own; relative paths in parameters count from where the flow
    # runs.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # glibc would keep the tail's tensors of 8 to 29 MB: a training step peaks 60 MB lower when they go back.
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    "MALLOC_TRIM_THRESHOLD_": "33554432",
}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Addresses of the cloud's metadata about this machine; Ray reads it, and a proxy would give that of its own machine.
_METADATA = ("169.254.169.254", "metadata.google.internal")


def set_defaults(*settings: Mapping[str, str]) -> None:
    """Put settings into this process's environment, for it and those it starts, where the user has not set them."""
    for name, value in (item for of_one in settings for item in of_one.items()):
        os.environ.setdefault(name, value)


def names_of_this_machine() -> list[str]:
    """The names and addresses by which servers on this machine are reached; Ray also uses those of its network."""
    families = (socket.AF_INET, socket.AF_INET6)
    found = [
        a.address for addresses in psutil.net_if_addrs().values() for a in addresses if a.family in families
    ]
    own = [address.partition("%")[0] for address in found]
    return list(dict.fromkeys([*_LOOPBACK, socket.gethostname(), *own, *_METADATA]))


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """NO_PROXY and no_proxy: what an environment already holds, and the names of this machine."""
    named = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [host for host in (part.strip() for part in named.split(",")) if host]
    value = ",".join(dict.fromkeys([*hosts, *names_of_this_machine()]))
    if (
        "*" in hosts
    ):  # no proxy at all; with other names beside it, some programs take it for the name of a host
        value = "*"
    return {"NO_PROXY": value, "no_proxy": value}
