"""Ray actors that work on scans, one scan at a time each; a scan outlives the actor and the node that worked on it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from pointcloud.errors import PointloomError, one_line
from pointcloud.storage.ledger import Record
from tasks.collection.engine import Worker, outcome
from tasks.collection.plan import ScanToDo

_LIVES = 3
"""So many actors may end over one scan before the scan is taken for the cause, or in a row before they begin."""


def actors(
    stage: str,
    kind: type,
    arguments: tuple[Any, ...],
    num_actors: int,
    options: dict[str, Any],
    keep: Callable[[Record], None],
) -> Worker:
    """A worker that hands each scan to an actor that is idle.

    The scan of an actor that ends goes to another one, and a new actor takes the place of the one that ended. A scan
    over which three actors of this run ended is quarantined.

    Args:
        stage: of the ledger.
        kind: class of the actors, with `ready()` and `work(scan) -> Record`, which raises nothing.
        arguments: of its constructor.
        num_actors: as many at once as the cluster has room for, at most.
        options: of Ray for each actor, as `num_cpus`.
        keep: puts a record into the ledger. Raises StorageError.
    """
    remote: Any = ray.remote(max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD", **options)(
        kind
    )

    def run(scans: Sequence[ScanToDo], is_over: Callable[[], bool]) -> Iterator[Record]:
        waiting, ended_over, never_began = deque(scans), Counter[str](), 0
        calls: dict[Any, tuple[Any, ScanToDo | None]] = {}

        def begin() -> None:
            actor = remote.remote(*arguments)
            calls[actor.ready.remote()] = actor, None

        for _ in range(min(num_actors, len(waiting))):
            begin()
        # Actors that the cluster has no room for are not waited for once the others have done everything.
        while any(scan for _, scan in calls.values()) or (calls and waiting and not is_over()):
            (call,), _ = ray.wait(list(calls), num_returns=1)
            actor, scan = calls.pop(call)
            try:
                record = ray.get(call)
            except RayTaskError:  # a defect of the actor
                raise
            except RayError as error:
                with suppress(RayError):
                    ray.kill(actor)  # one that cannot be reached may still be at it
                if scan is None:
                    never_began += 1
                    if never_began >= _LIVES:
                        raise PointloomError(
                            f"{_LIVES} actors in a row ended before they began ({one_line(error)}); the log files of "
                            "Ray say why."
                        ) from error
                else:
                    ended_over[scan.name] += 1
                    if ended_over[scan.name] < _LIVES:
                        waiting.appendleft(scan)
                    else:
                        yield outcome(stage, replace(scan, error=_poisonous(scan)), _nothing, keep)
                if waiting and not is_over():
                    begin()
                continue
            if scan is None:
                never_began = 0
            else:
                yield record
            if waiting and not is_over():
                scan = waiting.popleft()
                calls[actor.work.remote(scan)] = actor, scan
        for actor, _ in calls.values():
            with suppress(RayError):
                ray.kill(actor)

    return run


def _poisonous(scan: ScanToDo) -> str:
    return (
        f"scan {scan.uri!r}: {_LIVES} processes ended without a word while they worked on it, as they do when memory "
        "runs out; leave it out, cut it in pieces, or give the machine more memory."
    )


def _nothing() -> Record:
    raise AssertionError("a scan with an error is not worked on")
