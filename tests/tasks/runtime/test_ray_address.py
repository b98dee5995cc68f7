"""A Ray cluster that does not answer is one sentence within seconds; one that does is found."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import ray

from pointcloud.errors import PointloomError
from tasks.runtime import ray_address
from tasks.runtime.ray_address import check_ray_address
from tests.support.clouds import assert_one_sentence


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "_WAIT_SECONDS", 0.5)
    monkeypatch.setattr(ray_address, "_PAUSE_SECONDS", 0.1)
    monkeypatch.delenv("RAY_USE_TLS", raising=False)


@pytest.fixture
def taken() -> Iterator[dict[str, int]]:
    """Ports that others have: a web server, and one that never says anything."""
    with (
        HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as web,
        socket.create_server(("127.0.0.1", 0)) as mute,
        socket.create_server(("127.0.0.1", 0)) as closed,
    ):
        threading.Thread(target=web.serve_forever, daemon=True).start()
        free = closed.getsockname()[1]
        closed.close()
        yield {"web": web.server_port, "mute": mute.getsockname()[1], "free": free}
        web.shutdown()


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize(
    ("who", "said"),
    [("free", "refused"), ("web", "a program other than Ray"), ("mute", "a program other than Ray")],
)
def test_what_is_no_ray_is_one_sentence(taken: dict[str, int], scheme: str, who: str, said: str) -> None:
    address = f"{scheme}127.0.0.1:{taken[who]}"
    with pytest.raises(PointloomError, match=f"no Ray cluster answers at .*{said}") as error:
        check_ray_address(address)
    assert_one_sentence(error, address)
    assert "unset it for a Ray of the run's own" in str(error.value)


@pytest.mark.parametrize("address", ["10.0.0.1", "host:port", "[::1:6379", "http://", ":6379"])
def test_what_is_no_address_is_one_sentence(address: str) -> None:
    with pytest.raises(PointloomError, match="is not an address like") as error:
        check_ray_address(address)
    assert_one_sentence(error, address)


@pytest.mark.parametrize("address", ["auto", "local"])
def test_a_ray_on_this_machine_is_left_to_ray(address: str) -> None:
    check_ray_address(address)


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_is_found() -> None:
    address = ray.get_runtime_context().gcs_address
    check_ray_address(address)
    check_ray_address(f"ray://{address}")
