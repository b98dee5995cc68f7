"""Whether the database of the embedded Prefect server answers, checked before the server starts.

Prefect starts a server whose database fails again and again, with a traceback each time.
"""

from __future__ import annotations

import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from pointcloud.errors import PointloomError, one_line

_ADVICE = "set PREFECT_HOME to an empty folder, or PREFECT_SERVER_DATABASE_CONNECTION_URL to a database that answers."
_WAIT_SECONDS = 10.0
_POSTGRES_PORT = 5432


def check_database(connection_url: str) -> None:
    """Open the database that a Prefect server on this machine would use, and write nothing to it.

    Args:
        connection_url: as Prefect's setting `server.database.connection_url` has it.

    Raises:
        PointloomError: no URL; a file that is no SQLite database, is locked or cannot be written; or nothing listens.
    """
    try:
        url = urlsplit(connection_url)
        port = url.port or _POSTGRES_PORT
    except ValueError as error:  # such as a port that is not a number
        raise PointloomError(f"Prefect's database has no URL that can be read; {_ADVICE}") from error
    if not url.scheme:
        raise PointloomError(f"Prefect's database has no URL that can be read; {_ADVICE}")
    try:
        if url.scheme.startswith("sqlite"):
            _open_sqlite(url)
        elif url.hostname:
            socket.create_connection((url.hostname, port), timeout=_WAIT_SECONDS).close()
    except (sqlite3.Error, OSError) as error:
        # Without the user's name and password.
        name = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
        raise PointloomError(
            f"Prefect's database {name!r} cannot be used ({one_line(error)}); {_ADVICE}"
        ) from error


def _open_sqlite(url: SplitResult) -> None:
    path = unquote(url.path.removeprefix("/"))
    if not path or path.startswith(("file:", ":memory:")) or not Path(path).exists():
        return
    with closing(sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")  # fails where the file is read-only or locked for long
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        database.execute("ROLLBACK")
