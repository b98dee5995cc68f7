"""The Prefect server that the processes of one test run share, since a start takes ten seconds of one core."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from prefect import get_client
from prefect.client.schemas.objects import Artifact
from prefect.client.schemas.sorting import ArtifactSort
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.testing.utilities import prefect_test_harness

_START_SECONDS = 300
_AT_ONCE = 200  # a server gives no more


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[None]:
    """Flows run on a server of the tests: the first process that needs it starts it, and ends it after the others."""
    folder = tmp_path_factory.getbasetemp()
    with shared_server(folder if worker_id == "master" else folder.parent):
        yield


@contextmanager
def shared_server(folder: Path) -> Iterator[None]:
    """The server whose address is in a folder; without one it is started, and ended when nobody uses it any more."""
    address, (starts, uses) = folder / "prefect-server", (folder / "prefect-starts", folder / "prefect-uses")
    with ExitStack() as stack, uses.open("a") as in_use:
        with starts.open("a") as alone:
            fcntl.flock(alone, fcntl.LOCK_EX)
            ours = not address.exists()
            if ours:
                stack.enter_context(prefect_test_harness(server_startup_timeout=_START_SECONDS))
                address.write_text(PREFECT_API_URL.value())
            else:
                stack.enter_context(temporary_settings({PREFECT_API_URL: address.read_text()}))
            fcntl.flock(in_use, fcntl.LOCK_SH)
        yield
        if ours:
            with starts.open("a") as alone:
                fcntl.flock(alone, fcntl.LOCK_EX)  # whoever needs a server from now on starts another
                address.unlink()
            fcntl.flock(in_use, fcntl.LOCK_EX)  # once the others have let go, which they do when they end too


def artifacts_of(words: str) -> list[Artifact]:
    """The artifacts with these words in their description, the newest first."""
    found: list[Artifact] = []
    with get_client(sync_client=True) as client:
        while some := client.read_artifacts(
            sort=ArtifactSort.CREATED_DESC, limit=_AT_ONCE, offset=len(found)
        ):
            found += some
    return [artifact for artifact in found if words in (artifact.description or "")]
