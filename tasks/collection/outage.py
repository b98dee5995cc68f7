"""What every flow does when storage does not answer: try the scan again, leave it, and after five in a row end the run.

`pointcloud.storage.filesystem` has waited for a minute by then. A scan that cannot be reached or written is no fault of
the scan: its ledger says nothing, so that the next run takes it up again, and `check_quarantine` fails the flow at its
end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pointcloud.errors import StorageError

T = TypeVar("T")

ATTEMPTS, PAUSE_SECONDS = 2, 5.0
UNREACHED_IN_A_ROW = 5
"""So many scans that storage does not give or take, and the run ends: it is the storage, or a full disk."""


def try_again(operation: Callable[[], T]) -> T:
    """The result of an operation on one scan, tried once more after a pause.

    Raises:
        StorageError: it failed each time.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return operation()
        except StorageError:
            time.sleep(PAUSE_SECONDS)
    return operation()


def left_sentence(uri: str) -> str:
    """The sentence on a scan that is left because others before it could not be reached."""
    return (
        f"scan {uri!r} was left, because {UNREACHED_IN_A_ROW} scans in a row before it could not be reached or "
        "written."
    )


class Outage:
    """Counts the scans in a row that could not be reached or written; for use by several threads."""

    def __init__(self) -> None:
        self._lock, self._in_a_row = threading.Lock(), 0

    def note(self, unreached: bool) -> None:
        """Note how the next scan has ended."""
        with self._lock:
            # Once the run is to end, a scan that was still in work does not change that.
            if not self.ends_the_run:
                self._in_a_row = self._in_a_row + 1 if unreached else 0

    @property
    def ends_the_run(self) -> bool:
        """Whether so many ended in a row that the rest is left."""
        return self._in_a_row >= UNREACHED_IN_A_ROW
