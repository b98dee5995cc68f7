"""The few questions that `make up` asks a Prefect server, over its REST interface.

`python -m infra.prefect_api` makes sure of the automation of heartbeat.yaml on the server of PREFECT_API_URL.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from pointcloud.errors import PointloomError

HEARTBEAT = Path(__file__).parent / "heartbeat.yaml"
_SECONDS = 10
# What a server says whose SQLite database is locked for a moment; nothing was done then. Prefect's own clients ask
# again too.
_BUSY = 503
_RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)


def ask(api_url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """GET `path`, or POST `body` to it; the answer's JSON.

    Raises:
        OSError: no answer, or one that is an error (`urllib.error.HTTPError`).
    """
    headers = {"Content-Type": "application/json"}
    if user_and_password := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(user_and_password.encode()).decode()}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{api_url}{path}", data, headers)
    # The server is on this machine or beside it: a proxy named in the environment has no part in it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for wait_s in (*_RETRY_SECONDS, None):
        try:
            with opener.open(request, timeout=_SECONDS) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            if error.code != _BUSY or wait_s is None:
                raise
            time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def is_healthy(api_url: str) -> bool:
    """Whether a Prefect server answers there."""
    try:
        return ask(api_url, "/health") is True
    except (OSError, ValueError):
        return False


def worker_is_online(api_url: str, pool: str, since: datetime) -> bool:
    """Whether a worker of the pool has given a sign of life since then."""
    try:
        workers = ask(api_url, f"/work_pools/{pool}/workers/filter", {})
    except OSError:
        return False
    return any(
        worker["status"] == "ONLINE" and datetime.fromisoformat(worker["last_heartbeat_time"]) >= since
        for worker in workers
    )


def deployments(api_url: str) -> list[str]:
    """`flow/deployment` of all deployments, sorted.

    Raises:
        PointloomError: the server does not answer.
    """
    try:
        names = {flow["id"]: flow["name"] for flow in ask(api_url, "/flows/filter", {})}
        return sorted(f"{names[d['flow_id']]}/{d['name']}" for d in ask(api_url, "/deployments/filter", {}))
    except OSError as error:
        raise PointloomError(
            f"the Prefect server at {api_url} does not answer ({error}); see its log."
        ) from error


def ensure_automation(api_url: str, file: Path) -> None:
    """Create the automation of a YAML file, unless one with its name exists.

    Raises:
        PointloomError: the server refuses it or does not answer.
    """
    wanted = yaml.safe_load(file.read_text())
    try:
        if not ask(api_url, "/automations/filter", {"automations": {"name": {"any_": [wanted["name"]]}}}):
            ask(api_url, "/automations/", wanted)
    except urllib.error.HTTPError as error:
        reason = error.read().decode(errors="replace")[:300]
        raise PointloomError(f"the Prefect server refuses the automation of {file}: {reason}") from error
    except OSError as error:
        raise PointloomError(f"the Prefect server at {api_url} does not answer ({error}).") from error


if __name__ == "__main__":
    try:
        ensure_automation(os.environ.get("PREFECT_API_URL", ""), HEARTBEAT)
    except (PointloomError, ValueError) as failure:
        sys.exit(f"error: {failure}; PREFECT_API_URL must name a running server.")
