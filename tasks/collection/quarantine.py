"""When a batch has failed: the scans that could not be read are named, and too many of them fail the flow."""

from __future__ import annotations

from collections.abc import Sequence

from pointcloud.errors import PointloomError, StorageError
from pointcloud.storage.ledger import DONE, QUARANTINED, Record


def check_quarantine(records: Sequence[Record], max_quarantined: int) -> None:
    """Raises PointloomError when more scans are quarantined than the user allows, naming the first of them.

    Raises StorageError as `check_reached`.
    """
    check_reached(records)
    bad = [r for r in records if r.state == QUARANTINED]
    if len(bad) > max_quarantined:
        more = f" (and {len(bad) - 1} more, see the ledger)" if len(bad) > 1 else ""
        raise PointloomError(
            f"{len(bad)} of {len(records)} scans quarantined, {max_quarantined} allowed: {bad[0].error}{more}"
        )


def check_reached(records: Sequence[Record]) -> None:
    """Raises StorageError when scans could not be reached or written: they are neither done nor quarantined."""
    unreached = [r for r in records if r.state not in (DONE, QUARANTINED)]
    if unreached:
        raise StorageError(
            f"{len(unreached)} of {len(records)} scans could not be reached or written; start again, what is done is "
            f"kept. The first: {unreached[0].error}"
        )
