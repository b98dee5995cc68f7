"""The embedded Prefect server of the command line: Ctrl-C in a terminal reaches it too, and must not end it first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import os, signal, time
import httpx, psutil
from prefect.settings import PREFECT_API_URL
from flows.running import prefect_api

try:
    with prefect_api():
        (server,) = [child for child in psutil.Process().children() if "uvicorn" in child.cmdline()]
        server.send_signal(signal.SIGINT)
        time.sleep(1)
        print(httpx.get(f"{PREFECT_API_URL.value()}/health").text)
        os.killpg(0, signal.SIGINT)
        time.sleep(30)
except KeyboardInterrupt:
    print("running" if server.is_running() else "gone")
    raise SystemExit(130)
"""


def test_ctrl_c_is_heard_by_the_flow_and_its_server_ends_after_it(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=environment | {"PREFECT_HOME": str(tmp_path)}, capture_output=True,
        text=True, check=False, timeout=240, start_new_session=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 130, done.stderr[-2000:]
    assert done.stdout.split() == ["true", "gone"]
