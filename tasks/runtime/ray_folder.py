"""The folder of Ray's sockets on this machine, whose path must be short."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from pointcloud.errors import PointloomError

# Linux allows 107 bytes for the path of a socket (unix(7), sun_path); Ray puts up to 70 behind its folder:
# /ray/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store.
_LONGEST = 107 - 70
_SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def has_room_for_sockets(folder: str) -> bool:
    """Whether the path of a folder is short enough for Ray's sockets to lie in it."""
    return len(os.fsencode(folder)) <= _LONGEST


@contextmanager
def short_ray_folder() -> Iterator[None]:
    """Let Ray keep its sockets in a folder with a short path, where that of temporary files is long.

    Raises:
        PointloomError: RAY_TMPDIR is too long, or there is no short folder that can be written.
    """
    named = os.environ.get("RAY_TMPDIR")
    folder = named or tempfile.gettempdir()
    if has_room_for_sockets(folder):
        yield
        return
    if named:
        raise PointloomError(
            f"RAY_TMPDIR {named!r} is longer than {_LONGEST} bytes, which is all that the sockets of Ray leave room "
            "for; name a shorter folder."
        )
    short = next((each for each in _SHORT if os.access(each, os.W_OK)), None)
    if short is None:
        raise PointloomError(
            f"the folder of temporary files, {folder!r}, is longer than {_LONGEST} bytes, which is all that the "
            "sockets of Ray leave room for; name a shorter folder with RAY_TMPDIR."
        )
    with tempfile.TemporaryDirectory(prefix="pointloom-", dir=short, ignore_cleanup_errors=True) as shorter:
        os.environ["RAY_TMPDIR"] = shorter
        try:
            yield
        finally:
            del os.environ["RAY_TMPDIR"]
