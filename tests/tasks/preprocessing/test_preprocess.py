"""One task a scan: what it is told does not grow with the collection."""

from __future__ import annotations

from typing import Any

from prefect.utilities.collections import visit_collection

from tasks.preprocessing.plan import ScanToCut
from tasks.preprocessing.preprocess import CuttingRun


def visited(value: Any) -> int:
    """How many objects Prefect looks at in the parameters of a task."""
    seen: list[Any] = []
    visit_collection(value, seen.append, return_data=False)
    return len(seen)


class Holder(CuttingRun):
    """A run with many scans, as far as a task sees it."""

    def __init__(self, num_scans: int) -> None:
        self.decoded_scans = {str(n): [n] for n in range(num_scans)}


def test_what_prefect_looks_at_does_not_grow_with_the_collection() -> None:
    scan = ScanToCut(name="a.las", uri="/a.las", key="k")
    few, many = (visited({"scan": scan, "run": Holder(num_scans)}) for num_scans in (1, 1000))
    assert few == many < 20
