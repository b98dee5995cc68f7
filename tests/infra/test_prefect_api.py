"""What is asked of a Prefect server: once more where it is busy, and a worker that was killed is not taken for one."""

from __future__ import annotations

import http.server
import threading
import urllib.error
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from infra import prefect_api


@pytest.fixture
def answers() -> list[int]:
    """The statuses that the server gives, one after the other."""
    return []


@pytest.fixture
def api_url(answers: list[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(prefect_api, "_RETRY_SECONDS", (0.0, 0.0))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers.pop(0))
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"true")

        def log_message(self, *said: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_busy_server_is_asked_again(api_url: str, answers: list[int]) -> None:
    answers += [503, 503, 200]
    assert prefect_api.ask(api_url, "/health") is True


@pytest.mark.parametrize("given", [[503, 503, 503], [500]], ids=str)
def test_one_that_stays_busy_or_fails_is_said(api_url: str, answers: list[int], given: list[int]) -> None:
    answers += given
    with pytest.raises(urllib.error.HTTPError, match=str(given[-1])):
        prefect_api.ask(api_url, "/health")
    assert not answers


@pytest.mark.parametrize(
    ("heard", "online"), [("2026-01-01T00:00:59Z", False), ("2026-01-01T00:01:00Z", True)]
)
def test_a_sign_of_life_of_the_worker_before_is_none(
    monkeypatch: pytest.MonkeyPatch, heard: str, online: bool
) -> None:
    answer = [{"status": "ONLINE", "last_heartbeat_time": heard}]
    monkeypatch.setattr(prefect_api, "ask", lambda *asked: answer)
    started = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    assert prefect_api.worker_is_online("http://127.0.0.1:1/api", "pool", started) is online
