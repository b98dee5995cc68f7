"""When a batch has failed: the scans that could not be read are named, and too many of them fail the flow."""

from __future__ import annotations

from collections.abc import Sequence

from pointcloud.errors import PointloomError
from pointcloud.ledger import QUARANTINED, Record


def check_quarantine(records: Sequence[Record], max_quarantined: int) -> None:
    """Raises PointloomError when more scans are quarantined than the user allows, naming the first of them."""
    bad = [r for r in records if r.state == QUARANTINED]
    if len(bad) > max_quarantined:
        more = f" (and {len(bad) - 1} more, see the ledger)" if len(bad) > 1 else ""
        raise PointloomError(
            f"{len(bad)} of {len(records)} scans quarantined, {max_quarantined} allowed: {bad[0].error}{more}"
        )
