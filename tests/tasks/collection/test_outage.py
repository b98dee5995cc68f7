"""When storage does not answer: once more, then the scan is left, and after five in a row the run."""

from __future__ import annotations

import pytest

from pointcloud.errors import StorageError
from tasks.collection import outage
from tasks.collection.outage import UNREACHED_IN_A_ROW, Outage, try_again


@pytest.mark.parametrize(("failures", "calls"), [(0, 1), (1, 2)])
def test_what_fails_once_is_tried_once_more(
    monkeypatch: pytest.MonkeyPatch, failures: int, calls: int
) -> None:
    monkeypatch.setattr(outage, "PAUSE_SECONDS", 0.0)
    tried: list[int] = []

    def operation() -> str:
        tried.append(1)
        if len(tried) <= failures:
            raise StorageError("away.")
        return "done"

    assert try_again(operation) == "done"
    assert len(tried) == calls


def test_what_fails_again_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "PAUSE_SECONDS", 0.0)
    tried: list[int] = []

    def operation() -> None:
        tried.append(1)
        raise StorageError(f"away for the {len(tried)}. time.")

    with pytest.raises(StorageError, match=r"away for the 2\. time\."):
        try_again(operation)


def test_only_scans_in_a_row_end_a_run() -> None:
    counted = Outage()
    for unreached in [True] * (UNREACHED_IN_A_ROW - 1) + [False] + [True] * (UNREACHED_IN_A_ROW - 1):
        counted.note(unreached)
        assert not counted.ends_the_run
    counted.note(True)
    assert counted.ends_the_run
    counted.note(False)  # one that was under way
    assert counted.ends_the_run
