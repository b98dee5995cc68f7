"""What a user sees while a flow runs: a progress bar in the Prefect UI and tables at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from slugify import slugify

from pointcloud.ledger import QUARANTINED, Record


class Progress:
    """A progress artifact of `total` steps."""

    def __init__(self, key: str, description: str, total: int) -> None:
        self._total, self._done = max(total, 1), 0
        self._id: Any = create_progress_artifact(0.0, key=slugify(key), description=description)

    def step(self, done: int | None = None) -> None:
        """One step more, or `done` steps in all."""
        self._done = self._done + 1 if done is None else done
        update_progress_artifact(self._id, progress=100.0 * self._done / self._total)


def show_records(key: str, records: Sequence[Record], description: str) -> None:
    """A table of scans by state, quarantined ones first."""
    rows = [
        {
            "scan": r.scan,
            "state": r.state,
            "points": r.points_in,
            "seconds": round(r.seconds, 2),
            "output": r.output,
            "why": r.error,
        }
        for r in sorted(records, key=lambda r: (r.state != QUARANTINED, r.scan))
    ]
    create_table_artifact(rows, key=slugify(key), description=description)


def show_markdown(key: str, text: str, description: str) -> None:
    create_markdown_artifact(text, key=slugify(key), description=description)
