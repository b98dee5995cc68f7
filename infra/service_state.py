"""What `make up` has started, on disk: so that `make down` ends that and nothing else."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from infra.processes import Service
from pointcloud.errors import PointloomError

HOST = "127.0.0.1"


@dataclass
class State:
    """What one `up` has started."""

    mark: str
    port: int
    services: list[Service] = field(default_factory=list)
    ready: bool = False

    @property
    def url(self) -> str:
        """Where the Prefect UI is."""
        return f"http://{HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        """Where the Prefect API is, as PREFECT_API_URL names it."""
        return f"{self.url}/api"


def read_state(folder: Path) -> State | None:
    """What the last `up` wrote; None where nothing was started.

    Raises:
        PointloomError: the file is damaged.
    """
    try:
        values = json.loads((folder / "state.json").read_text())
        return State(**{**values, "services": [Service(**service) for service in values["services"]]})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise PointloomError(
            f"{folder / 'state.json'} cannot be understood ({error}); end the services by hand and remove it."
        ) from error


def write_state(folder: Path, state: State) -> None:
    """Replace what is written there, in one step."""
    temporary = folder / "state.json.tmp"
    temporary.write_text(json.dumps(asdict(state), indent=2))
    temporary.replace(folder / "state.json")


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the folder's lock.

    Raises:
        PointloomError: another `up` or `down` holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PointloomError(
                f"another 'make up' or 'make down' is at work in {folder}; wait for it to end."
            ) from error
        yield
