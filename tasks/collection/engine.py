"""Work on many scans: the same kind of fault has the same outcome in every flow and in every process.

A scan is done, quarantined (it cannot be read, and that is a fault of the scan) or unreached (storage does not give or
take it, after a second attempt; the next run takes it up again). After several unreached scans in a row the rest is
left. What is done is in the ledger at once, so the next run goes on from there, however this one ends.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from pointcloud.errors import PointloomError, ScanError, StorageError, one_line
from pointcloud.storage.ledger import DONE, QUARANTINED, UNREACHED, Record
from tasks.collection.outage import UNREACHED_IN_A_ROW, Outage, left_sentence, try_again
from tasks.collection.plan import ScanToDo
from tasks.runtime.isolation import scratch_sentence

if TYPE_CHECKING:  # imports Prefect, which the processes that work on scans do not need
    from tasks.prefect_ui.scan_states import ScanStates

CANNOT_BEGIN = "cannot begin"
"""State of a scan whose worker has what it needs not, such as the network: the scan is sound, and the run ends."""

Logger = logging.Logger | logging.LoggerAdapter[Any]
Worker = Callable[[Sequence[ScanToDo], Callable[[], bool]], Iterator[Record]]
"""Works on scans in their order, some at a time, and gives the record of each when it ends.

Before it begins with a scan it asks whether the rest is to be left.
"""


def outcome(stage: str, scan: ScanToDo, work: Callable[[], Record], keep: Callable[[Record], None]) -> Record:
    """Work on one scan and return its record, done or not; called in the process that does the work.

    Args:
        stage: of the ledger.
        scan: the scan to work on.
        work: the record of the scan when it is done. Raises ScanError where it cannot be read, and StorageError.
        keep: puts a record into the ledger. Raises StorageError.
    """
    began = time.monotonic()

    def once() -> Record:
        record = _done_or_quarantined(stage, scan, work, began)
        keep(record)
        return record

    try:
        return try_again(once)
    except StorageError as error:
        # The scan may be good: nothing is written to the ledger, so that the next run takes it up again.
        return failed(stage, scan, UNREACHED, str(error), began)


def _done_or_quarantined(stage: str, scan: ScanToDo, work: Callable[[], Record], began: float) -> Record:
    """Raises StorageError."""
    if scan.error:
        return failed(stage, scan, QUARANTINED, scan.error, began)
    try:
        return work()
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(scratch_sentence(error)) from error
    except ScanError as error:
        sentence = str(error).replace(f"scan {scan.name!r}", f"scan {scan.uri!r}", 1)
        named = sentence if repr(scan.uri) in sentence else f"scan {scan.uri!r}: {error}"
        return failed(stage, scan, QUARANTINED, named, began)
    except PointloomError as error:
        return failed(stage, scan, QUARANTINED, str(error), began)
    except Exception as error:  # noqa: BLE001
        # An error in Pointloom, or too little memory: the scan is named, the others go on.
        reason = one_line(error).rstrip(".")
        sentence = f"scan {scan.uri!r}: working on it failed unexpectedly ({type(error).__name__}: {reason})."
        details = {"traceback": traceback.format_exc()}
        return failed(stage, scan, QUARANTINED, sentence, began, details)


def failed(
    stage: str, scan: ScanToDo, state: str, error: str, began: float, details: dict[str, Any] | None = None
) -> Record:
    """The record of a scan that is not done.

    Args:
        began: when work on it began, by `time.monotonic`.
    """
    return Record(
        stage=stage,
        scan=scan.name,
        key=scan.key,
        state=state,
        seconds=time.monotonic() - began,
        error=error,
        details=details or {},
    )


def work_through(
    stage: str,
    scans: Sequence[ScanToDo],
    worker: Worker,
    states: ScanStates,
    logger: Logger,
    tell: Callable[[Record], None],
) -> dict[str, Record]:
    """Let a worker work on scans and show the progress; returns scan -> record.

    Args:
        stage: of the ledger.
        scans: what is to do, in the order of the work.
        worker: does it.
        states: shows it.
        logger: of the run.
        tell: says in the log what became of a scan that is done.

    Raises:
        PointloomError: the worker cannot begin.
    """
    outage, records = Outage(), dict[str, Record]()
    for record in worker(scans, lambda: outage.ends_the_run):
        if record.state == CANNOT_BEGIN:
            raise PointloomError(record.error)
        records[record.scan] = record
        states.set(record.scan, record.state, record)
        if record.state == DONE:
            tell(record)
        else:
            logger.warning("%s: %s", record.state, record.error)
            if "traceback" in record.details:
                logger.warning("%s", record.details["traceback"])
        if not outage.ends_the_run:
            outage.note(record.state == UNREACHED)
            if outage.ends_the_run:
                logger.error(
                    "%s scans in a row ended like this: the rest is left, what is done is kept",
                    UNREACHED_IN_A_ROW,
                )
    for record in _left(stage, (scan for scan in scans if scan.name not in records)):
        records[record.scan] = record
        states.set(record.scan, record.state, record)
    states.show()
    return records


def _left(stage: str, scans: Iterable[ScanToDo]) -> Iterator[Record]:
    for scan in scans:
        yield failed(stage, scan, UNREACHED, left_sentence(scan.uri), time.monotonic())


def threads(work: Callable[[ScanToDo], Record], num_threads: int) -> Worker:
    """A worker that calls a function for each scan, in some threads of this process."""

    def run(scans: Sequence[ScanToDo], is_over: Callable[[], bool]) -> Iterator[Record]:
        waiting, running = iter(scans), set[Future[Record]]()
        with ThreadPoolExecutor(num_threads) as pool:
            while True:
                while len(running) < num_threads and not is_over():
                    scan = next(waiting, None)
                    if scan is None:
                        break
                    # Prefect's settings and its run are in the context.
                    running.add(pool.submit(copy_context().run, work, scan))
                if not running:
                    return
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield future.result()

    return run
