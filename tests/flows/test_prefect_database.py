"""A database that Prefect's embedded server could not use is one sentence before anything starts."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from flows import prefect_database
from flows.prefect_database import check_database
from pointcloud.errors import PointloomError
from tests.support.clouds import assert_one_sentence


def sqlite(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def test_a_database_that_can_be_used_is_left_as_it_is(tmp_path: Path) -> None:
    check_database(sqlite(tmp_path / "new.db"))
    check_database("sqlite+aiosqlite:///:memory:")
    assert not list(tmp_path.iterdir())
    path = tmp_path / "prefect.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE runs (id INTEGER)")
    content = path.read_bytes()
    check_database(sqlite(path))
    assert path.read_bytes() == content
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_database(f"postgresql+asyncpg://user:secret@127.0.0.1:{server.getsockname()[1]}/prefect")


def test_a_database_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_database, "_WAIT_SECONDS", 0.1)
    (tmp_path / "text.db").write_text("This is no database, but a text that somebody saved under its name.")
    (tmp_path / "folder.db").mkdir()
    with closing(sqlite3.connect(tmp_path / "locked.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE runs (id INTEGER)")
        other.execute("BEGIN EXCLUSIVE")
        for name, reason in (
            ("text", "not a database"),
            ("folder", "unable to open"),
            ("locked", "is locked"),
        ):
            with pytest.raises(PointloomError, match=reason) as error:
                check_database(sqlite(tmp_path / f"{name}.db"))
            assert_one_sentence(error, f"{name}.db")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(PointloomError, match="refused") as error:
            check_database(f"postgresql+asyncpg://user:secret@127.0.0.1:{port}/prefect")
    assert_one_sentence(error, f"127.0.0.1:{port}/prefect")
    assert "secret" not in str(error.value)
    for url in ("", "no url", "postgresql://host:port/x"):
        with pytest.raises(PointloomError, match="no URL that can be read"):
            check_database(url)


_FAILS = """
from flows.embedded_server import prefect_api
with prefect_api():
    print("never")
"""


@pytest.mark.slow
def test_a_server_that_ends_while_it_starts_is_not_tried_for_ever(tmp_path: Path) -> None:
    (tmp_path / "prefect.db").write_text(
        "This is no database, but a text that somebody saved under its name."
    )
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(
        [sys.executable, "-c", _FAILS], text=True, capture_output=True, timeout=240, check=False,
        env=environment
        | {"PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "never" not in done.stdout
    assert "the embedded Prefect server did not start (it ended while it started)" in done.stderr
