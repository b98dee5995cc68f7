"""Settings are said once: what other languages must repeat agrees with it."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from infra.environment import ENVIRONMENT
from tasks.runtime.environment import (
    PREFECT,
    RAY,
    THREADS,
    names_of_this_machine,
    set_defaults,
    without_proxy,
)

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("file", ["Makefile", "infra/Dockerfile", "infra/compose.yaml"])
def test_makefile_image_and_compose_repeat_the_same_values(file: str) -> None:
    text, known = (ROOT / file).read_text(), PREFECT | THREADS | RAY | ENVIRONMENT
    repeated = dict(re.findall(r'\b([A-Z_]{8,})(?:=| [:?]?= |: )"?([\w.-]+)', text))
    shared = {name: value for name, value in repeated.items() if name in known and name != "RAY_AUTH_MODE"}
    assert "RAY_USAGE_STATS_ENABLED" in shared
    assert shared == {name: known[name] for name in shared}


def test_what_the_user_has_set_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    set_defaults(PREFECT, THREADS)
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["DO_NOT_TRACK"]) == ("ACTIVE", "1")
    for name in PREFECT:
        monkeypatch.setenv(name, os.environ[name])  # gone with the test


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({}, ["127.0.0.1", "localhost", "::1"]),
        ({"NO_PROXY": "a.example, localhost"}, ["a.example", "localhost", "127.0.0.1", "::1"]),
        ({"no_proxy": "b.example", "NO_PROXY": "a.example"}, ["b.example", "127.0.0.1", "localhost", "::1"]),
    ],
)
def test_a_proxy_is_not_asked_for_this_machine(given: dict[str, str], value: list[str]) -> None:
    found = without_proxy(given)
    assert found["NO_PROXY"] == found["no_proxy"]
    names = found["NO_PROXY"].split(",")
    assert names[: len(value)] == value
    assert set(names) == {*value, *names_of_this_machine()}
    assert {socket.gethostname(), "127.0.0.1"} <= set(names)
    assert len(names) == len(set(names))


def test_no_proxy_at_all_stays_so() -> None:
    assert without_proxy({"NO_PROXY": "*"}) == {"NO_PROXY": "*", "no_proxy": "*"}


class _Server(HTTPServer):
    """Answers everything with 200, as a web server or as a proxy, and counts."""

    requests = 0


class _Counts(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.requests += 1
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def servers() -> Iterator[tuple[_Server, _Server]]:
    with _Server(("127.0.0.1", 0), _Counts) as one, _Server(("127.0.0.1", 0), _Counts) as other:
        for server in (one, other):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        yield one, other
        one.shutdown()
        other.shutdown()


def test_the_client_of_prefect_sends_no_request_to_this_machine_through_a_proxy(
    servers: tuple[_Server, _Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, proxy = servers
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    url = f"http://127.0.0.1:{target.server_port}/"
    assert httpx.get(url).status_code == 200
    assert (target.requests, proxy.requests) == (0, 1), "what happens without the setting"
    for name, value in without_proxy({}).items():
        monkeypatch.setenv(name, value)
    assert httpx.get(url).status_code == 200
    assert httpx.get(url.replace("127.0.0.1", "localhost")).status_code == 200
    assert (target.requests, proxy.requests) == (2, 1)
    for name in names_of_this_machine():
        with suppress(httpx.TransportError):  # nobody listens at most of them
            httpx.get(f"http://{f'[{name}]' if ':' in name else name}:{target.server_port}/", timeout=2)
    assert proxy.requests == 1
