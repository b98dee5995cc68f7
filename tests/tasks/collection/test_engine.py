"""One outcome for one kind of fault, and a run that ends where storage is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from pointcloud.errors import PointloomError, ScanError, StorageError
from pointcloud.storage import ledger
from pointcloud.storage.ledger import DONE, QUARANTINED, UNREACHED, Record
from tasks.collection import outage
from tasks.collection.engine import CANNOT_BEGIN, failed, outcome, threads, work_through
from tasks.collection.outage import UNREACHED_IN_A_ROW
from tasks.collection.plan import ScanToDo

STAGE = "segment"
LOGGER = logging.getLogger(__name__)


class States:
    """What `work_through` shows, without Prefect."""

    def __init__(self) -> None:
        self.ended: dict[str, str] = {}

    def set(self, scan: str, state: str, record: Record | None = None) -> None:
        self.ended[scan] = state

    def show(self) -> None:
        pass


def scans(number: int) -> list[ScanToDo]:
    return [ScanToDo(name=f"{n}.las", uri=f"/{n}.las", key="k") for n in range(number)]


def done(scan: ScanToDo) -> Record:
    return Record(stage=STAGE, scan=scan.name, key=scan.key, state=DONE)


def fail(error: Exception) -> Callable[[ScanToDo], Record]:
    def work(_: ScanToDo) -> Record:
        raise error

    return work


def run(
    tmp_path: Path, work: Callable[[ScanToDo], Record], number: int, num_threads: int = 1
) -> tuple[dict[str, Record], dict[str, Record]]:
    """The records that come back, and those of the ledger."""
    root, states = str(tmp_path), States()

    def keep(record: Record) -> None:
        ledger.write(root, record)

    def of(scan: ScanToDo) -> Record:
        return outcome(STAGE, scan, lambda: work(scan), keep)

    records = work_through(STAGE, scans(number), threads(of, num_threads), states, LOGGER, lambda _: None)
    assert states.ended == {scan: record.state for scan, record in records.items()}
    return records, ledger.read_all(root, STAGE)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "PAUSE_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [
        (ScanError("it is truncated."), QUARANTINED, "scan '/0.las': it is truncated."),
        (ScanError("cannot read '/0.las'."), QUARANTINED, "cannot read '/0.las'."),
        (PointloomError("no such feature."), QUARANTINED, "no such feature."),
        (ValueError("of\nall kinds."), QUARANTINED, "it failed unexpectedly (ValueError: of all kinds)."),
        (MemoryError(), QUARANTINED, "scan '/0.las': working on it failed unexpectedly (MemoryError: MemoryError)."),
        (StorageError("the bucket is away."), UNREACHED, "the bucket is away."),
        (OSError(28, "No space left on device"), UNREACHED, "No space left on device; make room there"),
    ],
)  # fmt: skip
def test_each_fault_has_one_outcome(tmp_path: Path, error: Exception, state: str, said: str) -> None:
    records, kept = run(tmp_path, fail(error), 1)
    record = records["0.las"]
    assert record.state == state
    assert said in record.error
    assert ("traceback" in record.details) == ("unexpectedly" in record.error)
    assert kept == ({"0.las": record} if state == QUARANTINED else {}), (
        "the ledger says nothing of the unreached"
    )


def test_a_scan_with_an_error_is_not_worked_on(tmp_path: Path) -> None:
    scan = ScanToDo(name="a.las", uri="/a.las", key="k", error="its header lies.")
    record = outcome(STAGE, scan, lambda: pytest.fail("worked on"), lambda record: None)
    assert (record.state, record.error) == (QUARANTINED, "its header lies.")


def test_a_tenth_that_is_broken_in_five_ways_does_not_keep_the_others(tmp_path: Path) -> None:
    faults: dict[str, Exception] = {
        "3.las": ScanError("truncated."), "13.las": StorageError("away."), "23.las": ValueError("?"),
        "33.las": OSError("full"), "43.las": MemoryError(),
    }  # fmt: skip

    def work(scan: ScanToDo) -> Record:
        if scan.name in faults:
            raise faults[scan.name]
        return done(scan)

    records, kept = run(tmp_path, work, 50, num_threads=4)
    assert len(records) == 50
    states = {name: records[name].state for name in faults}
    assert states == {
        "3.las": QUARANTINED, "13.las": UNREACHED, "23.las": QUARANTINED, "33.las": UNREACHED, "43.las": QUARANTINED,
    }  # fmt: skip
    assert {
        name for name, record in records.items() if record.state == DONE
    } == records.keys() - faults.keys()
    assert kept.keys() == records.keys() - {"13.las", "33.las"}


def test_scans_in_a_row_that_are_not_reached_end_the_run_and_the_rest_is_left(tmp_path: Path) -> None:
    begun: list[str] = []

    def work(scan: ScanToDo) -> Record:
        begun.append(scan.name)
        if scan.name == "0.las":
            return done(scan)
        raise StorageError(f"{scan.uri} is away.")

    records, kept = run(tmp_path, work, 10)
    assert set(begun) == {f"{n}.las" for n in range(UNREACHED_IN_A_ROW + 1)}
    assert [record.state for record in records.values()] == [DONE] + [UNREACHED] * 9
    assert sum("was left, because 5 scans in a row" in record.error for record in records.values()) == 4
    assert kept.keys() == {"0.las"}


def test_a_worker_that_cannot_begin_ends_the_run() -> None:
    def worker(todo: Any, _: Callable[[], bool]) -> Iterator[Record]:
        yield failed(STAGE, todo[0], CANNOT_BEGIN, "no checkpoint there.", 0.0)

    with pytest.raises(PointloomError, match="no checkpoint there"):
        work_through(STAGE, scans(3), worker, States(), LOGGER, lambda _: None)


def test_threads_work_at_the_same_time_in_the_context_of_the_run() -> None:
    both, asked = threading.Barrier(2, timeout=20), ContextVar("asked", default="")
    asked.set("here")

    def work(scan: ScanToDo) -> Record:
        both.wait()
        assert asked.get() == "here"
        return done(scan)

    records = list(threads(work, 2)(scans(4), lambda: False))
    assert sorted(record.scan for record in records) == ["0.las", "1.las", "2.las", "3.las"]


def test_what_a_scan_is_told_does_not_grow_with_the_collection() -> None:
    """Threads begin with a scan when one is free: no queue of thousands is kept."""
    given: list[str] = []

    def lazily() -> Iterator[ScanToDo]:
        for scan in scans(100):
            given.append(scan.name)
            yield scan

    working = threads(done, 2)(lazily(), lambda: False)
    next(working)
    assert len(given) <= 3
    working.close()  # type: ignore[attr-defined]
