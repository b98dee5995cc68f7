"""The settings of every Prefect and Ray process that `make up` starts, and of their flow runs."""

from __future__ import annotations

import os
from pathlib import Path

from infra.service_state import HOST

ENVIRONMENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # infra/heartbeat.yaml counts on it
    "PREFECT_WORKER_QUERY_SECONDS": "3",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS": "infra.console.LastingConsole",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray Train would move its workers to a folder of its own, where relative paths mean nothing.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONUNBUFFERED": "1",
}


def environment(folder: Path, project: Path, api_url: str) -> dict[str, str]:
    """Of the services and the flow runs: the user's, without the Prefect server it may point at."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY"), HOST, "localhost"]))
    return {
        "RAY_AUTH_MODE": "disabled",  # the user's own mode wins where RAY_ADDRESS names a cluster
        **kept,
        **ENVIRONMENT,
        "NO_PROXY": direct,
        "no_proxy": direct,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": api_url,
        "POINTLOOM_HOME": str(project),
    }
