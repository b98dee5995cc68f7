"""The settings of every Prefect and Ray process that `make up` starts, and of their flow runs."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.runtime.environment import PREFECT, RAY, THREADS, without_proxy

ENVIRONMENT = {
    **PREFECT,
    **THREADS,
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # infra/heartbeat.yaml counts on it
    "PREFECT_WORKER_QUERY_SECONDS": "3",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS": "infra.console.LastingConsole",
    "PYTHONUNBUFFERED": "1",
    **{name: RAY[name] for name in ("RAY_USAGE_STATS_ENABLED", "RAY_CHDIR_TO_TRIAL_DIR")},
}


def environment(folder: Path, project: Path, api_url: str) -> dict[str, str]:
    """The environment of the services and the flow runs: the user's, without a Prefect server named there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {
        "RAY_AUTH_MODE": RAY["RAY_AUTH_MODE"],  # the user's own mode wins where RAY_ADDRESS names a cluster
        **kept,
        **ENVIRONMENT,
        **without_proxy(os.environ),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": api_url,
        "POINTLOOM_HOME": str(project),
    }
