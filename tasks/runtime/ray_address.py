"""Whether a Ray cluster answers at RAY_ADDRESS; asked before Ray connects, since Ray itself tries for minutes."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from urllib.parse import urlsplit

from pointcloud.errors import PointloomError

_WAIT_SECONDS = 10.0
_PAUSE_SECONDS = 1.0
_ON_THIS_MACHINE = ("auto", "local")
# What a client of HTTP/2, and so of gRPC, begins with: the preface and an empty frame of settings (RFC 9113, 3.4). A
# server answers with its settings.
_FRAME_BYTES, _SETTINGS = 9, 4
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])


def check_ray_address(address: str) -> None:
    """Look whether a Ray cluster may be at an address, `host:port` or `ray://host:port`.

    Raises:
        PointloomError: it is no address, or nothing answers there, or something other than Ray.
    """
    if address in _ON_THIS_MACHINE:
        return
    advice = "start the cluster, correct RAY_ADDRESS, or unset it for a Ray of the run's own."
    try:
        parts = urlsplit(address if "://" in address else f"ray://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:  # such as brackets that do not close, or a port that is not a number
        host, port = None, None
    if not host or not port:
        raise PointloomError(
            f"RAY_ADDRESS {address!r} is not an address like 10.0.0.1:6379 or ray://10.0.0.1:10001; {advice}"
        )
    deadline = time.monotonic() + _WAIT_SECONDS
    while reason := _why_no_ray(host, port):
        if time.monotonic() > deadline:
            raise PointloomError(f"no Ray cluster answers at {address!r} ({reason}); {advice}")
        time.sleep(_PAUSE_SECONDS)


def _why_no_ray(host: str, port: int) -> str:
    """Why nothing that speaks gRPC answers; empty where it does."""
    try:
        with socket.create_connection((host, port), timeout=_WAIT_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return ""
            connection.sendall(_GREETING)
            answer = b""
            with suppress(OSError):  # it waits for another protocol, or closes the connection
                while len(answer) < _FRAME_BYTES and (piece := connection.recv(_FRAME_BYTES)):
                    answer += piece
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    is_grpc = len(answer) >= _FRAME_BYTES and answer[3] == _SETTINGS
    return "" if is_grpc else "a program other than Ray listens there"
