"""Processes that run tests at the same time share one server, and it ends with the last of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

_USES_IT = """
import sys
from pathlib import Path
from prefect.settings import PREFECT_API_URL
from tests.support.prefect_server import shared_server

with shared_server(Path(sys.argv[1])):
    print(PREFECT_API_URL.value(), flush=True)
    sys.stdin.read()
"""


def user(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _USES_IT, str(folder)],
        cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_the_server_outlives_the_process_that_started_it_until_the_last_has_ended(tmp_path: Path) -> None:
    with user(tmp_path) as first:
        url = first.stdout.readline().strip()
        with user(tmp_path) as second:
            assert second.stdout.readline().strip() == url
            first.stdin.close()  # its tests are over
            assert httpx.get(f"{url}/health").is_success
            assert first.poll() is None, "it waits for the other"
            second.stdin.close()
            assert (second.wait(120), first.wait(120)) == (0, 0)
    assert not (tmp_path / "prefect-server").exists()
