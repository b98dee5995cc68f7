"""When a batch has failed: the scans that could not be read are named, and too many of them fail the flow."""

from __future__ import annotations

from collections.abc import Sequence

from pointcloud.errors import PointloomError, StorageError
from pointcloud.storage.ledger import DONE, QUARANTINED, Record


def check_quarantine(records: Sequence[Record], max_quarantined: int) -> None:
    """Raises PointloomError when more scans are quarantined than the user allows, naming the first of them.

    A scan that was neither done nor quarantined could not be reached or written: that is a StorageError.
    """
    unreached = [r for r in records if r.state not in (DONE, QUARANTINED)]
    if unreached:
        raise StorageError(
            f"{len(unreached)} of {len(records)} scans could not be reached or written; start again, what is done is "
            f"kept. The first: {unreached[0].error}"
        )
    bad = [r for r in records if r.state == QUARANTINED]
    if len(bad) > max_quarantined:
        more = f" (and {len(bad) - 1} more, see the ledger)" if len(bad) > 1 else ""
        raise PointloomError(
            f"{len(bad)} of {len(records)} scans quarantined, {max_quarantined} allowed: {bad[0].error}{more}"
        )
