"""Ray actors that each work on several scans at once; when an actor or its node is lost, its scans go to another."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
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
    scans_at_once: int = 1,
    *,
    ahead: Sequence[Any] = (),
    ready: tuple[Any, ...] = (),
) -> Worker:
    """A worker that hands each scan to an actor that has room for it.

    The scans of an actor that ends go to another one, and a new actor takes the place of the one that ended. From
    then on each of them is worked on alone; one over which three actors of this run ended is quarantined.

    Args:
        stage: of the ledger.
        kind: class of the actors, with `ready(*ready)` and `work(scan) -> Record`, which raises nothing.
        arguments: of its constructor.
        num_actors: as many at once as the cluster has room for, at most.
        options: of Ray for each actor, as `num_cpus`.
        keep: puts a record into the ledger. Raises StorageError.
        scans_at_once: of an actor, each in a thread of its own.
        ahead: what `actors_ahead` gave for the same kind, arguments and options; they are taken first.
        ready: what was not known yet when the first actors were made, handed to each before its first scan.
    """

    def quarantined(scan: ScanToDo) -> Record:
        return outcome(stage, replace(scan, error=_ended_actors(scan)), _nothing, keep)

    def run(scans: Sequence[ScanToDo], is_over: Callable[[], bool]) -> Iterator[Record]:
        remote, made = _remote(kind, options, scans_at_once), list(ahead)

        def new_actor() -> tuple[Any, Any]:
            handle = made.pop() if made else remote.remote(*arguments)
            return handle, handle.ready.remote(*ready)

        yield from _Actors(new_actor, quarantined, scans, is_over, scans_at_once).records(num_actors)
        for handle in made:
            _kill(handle)

    return run


def actors_ahead(
    kind: type, arguments: tuple[Any, ...], num_actors: int, options: dict[str, Any], scans_at_once: int = 1
) -> list[Any]:
    """Actors that start before their flow does, to be handed to `actors`, which has the same arguments."""
    remote = _remote(kind, options, scans_at_once)
    return [remote.remote(*arguments) for _ in range(num_actors)]


def _remote(kind: type, options: dict[str, Any], scans_at_once: int) -> Any:
    lasting: dict[str, Any] = {
        "max_restarts": 0,
        "max_task_retries": 0,
        "max_concurrency": scans_at_once,
        "scheduling_strategy": "SPREAD",
    }
    return ray.remote(**lasting, **options)(kind)


@dataclass(eq=False, slots=True)
class _Actor:
    """A Ray actor that has started, and the scans that it works on, by call."""

    handle: Any
    scans: dict[Any, ScanToDo] = field(default_factory=dict)
    ended: bool = False


class _Actors:
    """The actors of one run: each starts, then works on scan after scan until none waits or it ends."""

    def __init__(
        self,
        new_actor: Callable[[], tuple[Any, Any]],
        quarantined: Callable[[ScanToDo], Record],
        scans: Sequence[ScanToDo],
        is_over: Callable[[], bool],
        scans_at_once: int,
    ) -> None:
        self._new_actor, self._quarantined, self._is_over = new_actor, quarantined, is_over
        self._waiting, self._scans_at_once = deque(scans), scans_at_once
        self._starting: dict[Any, Any] = {}  # call of `ready` -> handle
        self._working: dict[Any, _Actor] = {}  # call of `work` -> the actor
        self._actors_ended = Counter[str]()  # over each scan
        self._starts_failed = 0  # in a row

    def records(self, num_actors: int) -> Iterator[Record]:
        """The record of each scan when it ends."""
        for _ in range(min(num_actors, len(self._waiting))):
            self._start()
        # Actors that the cluster has no room for are not waited for once the others have done everything.
        while self._working or (self._starting and self._scan_is_left()):
            (call,), _ = ray.wait([*self._working, *self._starting], num_returns=1)
            if call in self._starting:
                self._end_start(call)
            else:
                yield from self._end_work(call)
        for handle in [*self._starting.values(), *(actor.handle for actor in self._working.values())]:
            _kill(handle)

    def _scan_is_left(self) -> bool:
        return bool(self._waiting) and not self._is_over()

    def _start(self) -> None:
        handle, call = self._new_actor()
        self._starting[call] = handle

    def _work(self, actor: _Actor) -> None:
        """Give an actor what it has room for; without a scan it ends, since nothing holds it any more."""
        while not actor.ended and self._scan_is_left() and self._may_take(actor, self._waiting[0]):
            scan = self._waiting.popleft()
            call = actor.handle.work.remote(scan)
            actor.scans[call] = scan
            self._working[call] = actor

    def _may_take(self, actor: _Actor, scan: ScanToDo) -> bool:
        if not actor.scans:
            return True
        # A scan over which an actor ended is worked on alone, so that no other scan can be the cause next time.
        together = [*actor.scans.values(), scan]
        if len(together) > self._scans_at_once or any(self._actors_ended[each.name] for each in together):
            return False
        return len(self._waiting) > len(self._starting)  # those that start have nothing to do yet

    def _end_start(self, call: Any) -> None:
        handle = self._starting.pop(call)
        try:
            ray.get(call)
        except RayTaskError:  # a defect of the actor
            raise
        except RayError as error:
            _kill(handle)
            self._starts_failed += 1
            if self._starts_failed >= _LIVES:
                raise PointloomError(
                    f"{_LIVES} actors in a row ended before they began ({one_line(error)}); the log files of Ray say "
                    "why."
                ) from error
            if self._scan_is_left():
                self._start()
        else:
            self._starts_failed = 0
            self._work(_Actor(handle))

    def _end_work(self, call: Any) -> Iterator[Record]:
        """The record of the scan, if it has one; more work is handed out after that record has been looked at."""
        actor = self._working.pop(call)
        scan = actor.scans.pop(call)
        try:
            record = ray.get(call)
        except RayTaskError:  # a defect of the actor
            raise
        except RayError:
            _kill(actor.handle)
            actor.ended = True
            self._actors_ended[scan.name] += 1
            if self._actors_ended[scan.name] < _LIVES:
                self._waiting.appendleft(scan)
            else:
                yield self._quarantined(scan)
        else:
            yield record
        if not actor.ended:
            self._work(actor)
        elif not actor.scans and self._scan_is_left():
            self._start()


def _kill(actor: Any) -> None:
    """End an actor; one that cannot be reached may still be at work."""
    with suppress(RayError):
        ray.kill(actor)


def _ended_actors(scan: ScanToDo) -> str:
    return (
        f"scan {scan.uri!r}: {_LIVES} processes ended without an error message while they worked on it, as they do "
        "when memory runs out; leave it out, cut it in pieces, or give the machine more memory."
    )


def _nothing() -> Record:
    raise AssertionError("a scan with an error is not worked on")
