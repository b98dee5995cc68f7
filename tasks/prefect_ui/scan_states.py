"""What a user sees of a flow in the Prefect UI: a progress bar, a table and a map that move with it."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from prefect import get_client
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.actions import ArtifactUpdate
from slugify import slugify

from pointcloud.errors import one_line
from pointcloud.storage.ledger import CUTTING, QUARANTINED, READING, UNREACHED, Record
from tasks.prefect_ui.survey_map import Box, TileRuns, as_data_uri, draw_map

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_REFRESH_SECONDS, _PROGRESS_SECONDS = 5.0, 1.0
_REFRESH_SHARE = 0.02
"""Of the time of a run, at most, goes into drawing table and map anew, however many scans they show."""
_SHOWN_ROWS = 500


class Progress:
    """A progress artifact of `total` steps, which moves once a second at most."""

    def __init__(self, key: str, description: str, total: int) -> None:
        self._total, self._done, self._shown = max(total, 1), 0, 0.0
        self._id: Any = _shown(
            lambda: create_progress_artifact(0.0, key=slugify(key), description=description)
        )

    def step(self, done: int | None = None) -> None:
        """Count one step more, or set the count to `done`."""
        self._done = self._done + 1 if done is None else done
        is_due = time.monotonic() - self._shown >= _PROGRESS_SECONDS or self._done >= self._total
        if self._id is not None and is_due:
            self._shown = time.monotonic()
            _shown(lambda: update_progress_artifact(self._id, progress=100.0 * self._done / self._total))


class ScanStates:
    """A progress bar, a live table of scans by state and a map of them, for use by several threads.

    Args:
        key: of the artifacts.
        title: for people.
        states: scan -> state at the start.
        boxes: scan -> where it lies, as `draw_map` takes it.
        num_todo: scans that the bar counts.
        tiles: scan -> its tiles, where they are known already.
    """

    def __init__(
        self,
        key: str,
        title: str,
        states: Mapping[str, str],
        boxes: Mapping[str, Box],
        num_todo: int,
        tiles: Mapping[str, TileRuns] | None = None,
    ) -> None:
        self._states, self._boxes, self._records = dict(states), boxes, dict[str, Record]()
        self._tiles = dict(tiles or {})
        self._lock, self._next_show = threading.Lock(), time.monotonic() + _REFRESH_SECONDS
        self._progress = Progress(f"progress-{key}", title, num_todo)
        self._table: Any = _shown(
            lambda: create_table_artifact(
                self._rows(), key=slugify(f"scans-{key}"), description=f"{title}: scans by state"
            )
        )
        self._map: Any = (
            _shown(
                lambda: create_image_artifact(
                    self._picture(), key=slugify(f"map-{key}"), description=f"{title}: map"
                )
            )
            if boxes
            else None
        )

    def set(self, scan: str, state: str, record: Record | None = None, tiles: TileRuns | None = None) -> None:
        """Set the state of a scan; a record says that it is finished, tiles let the map show them."""
        with self._lock:
            self._states[scan] = state
            if tiles is not None:
                self._tiles[scan] = tiles
            if record is not None:
                self._records[scan] = record
                self._progress.step()
            if time.monotonic() < self._next_show:
                return
            self._next_show = math.inf  # by this thread, now
        self.show()

    def show(self) -> None:
        """Bring table and map up to date now."""
        began = time.monotonic()
        _shown(self._update)
        ended = time.monotonic()
        self._next_show = ended + max(_REFRESH_SECONDS, (ended - began) / _REFRESH_SHARE)

    def _update(self) -> None:
        with self._lock:
            rows, picture = self._rows(), self._picture() if self._map is not None else ""
        with get_client(sync_client=True) as client:
            if self._table is not None:
                client.update_artifact(self._table, ArtifactUpdate(data=json.dumps(rows)))
            if self._map is not None:
                client.update_artifact(self._map, ArtifactUpdate(data=picture))

    def _picture(self) -> str:
        return as_data_uri(draw_map(self._boxes, self._states, self._tiles))

    def _rows(self) -> list[dict[str, Any]]:
        """Rows of scans that need a look, then of those at work, then the rest; sums where there are many."""
        rank = {QUARANTINED: 0, UNREACHED: 0, CUTTING: 1, READING: 1}
        scans = sorted(self._states, key=lambda scan: (rank.get(self._states[scan], 2), scan))
        rows = [_row(scan, self._states[scan], self._records.get(scan)) for scan in scans[:_SHOWN_ROWS]]
        if len(scans) > _SHOWN_ROWS:
            rest = Counter(self._states[scan] for scan in scans[_SHOWN_ROWS:])
            rows += [_row(f"{count:,} more", state, None) for state, count in sorted(rest.items())]
        return rows


def _shown(show: Callable[[], _T]) -> _T | None:
    """What `show` returns; None where it fails, which is logged: a failing table or picture does not fail the run."""
    try:
        return show()
    except Exception as error:  # noqa: BLE001  # of Prefect's client, of the server, of drawing
        reason = one_line(error)
        _LOG.warning(
            "The states of the scans could not be shown in Prefect (%s: %s).", type(error).__name__, reason
        )
        return None


def _row(scan: str, state: str, record: Record | None) -> dict[str, Any]:
    found = record or Record(stage="", scan=scan, key="", state=state)
    return {
        "scan": scan,
        "state": state,
        "points": found.points_in,
        "seconds": round(found.seconds, 2),
        "output": found.path,
        "why": found.error,
    }


def show_markdown(key: str, text: str, description: str) -> None:
    """Show a Markdown artifact in the Prefect UI."""
    create_markdown_artifact(text, key=slugify(key), description=description)
