"""A lock with which only one run at a time writes to a dataset, on a disk or in a bucket.

How it works: a run that wants the lock writes a claim, a file of its own in `.lock` below the dataset, and then lists
the claims. When there is no other it has the lock, and keeps it until it removes the claim; when there is
another it removes its own, waits a random while and tries again. Of two claims, one is written first, so the
other's list must show it: both can fail, never can both succeed. This needs a storage that lists what was
written before the list began: a local disk, S3 (since December 2020, and what is built like it), Google and
Azure. A file of one name created exclusively would do on a disk, but pyarrow cannot ask a bucket for that.

A run that is killed leaves its claim behind. On the same machine it falls as soon as the process is gone.
From another machine that cannot be seen, so the owner renews its claim every 10 s and it falls 60 s after
the last time; ages are differences of two times of the storage, so the clocks of the machines may differ.

How strong it is: a run that was frozen for longer than that (a suspended machine, an outage) may find its
claim fallen and another run at work. `Lock.check` says so; every flow calls it before it publishes: a manifest, a
labelled cloud, a checkpoint. Between that call and the write a moment remains that no lock without help of the storage
closes.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from pointcloud.errors import PointloomError, StorageError
from pointcloud.storage import files

FOLDER = ".lock"
_BEAT_SECONDS = 10.0
_STALE_SECONDS = 60.0
# A claim this young may be that of a run that is still trying; older ones have the lock.
_LOOKING_SECONDS = 3.0
_POLL_SECONDS = (0.3, 1.2)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Owner:
    """Who has, or wants, a lock.

    Attributes:
        host: name of the machine, for people.
        machine: what tells where the pid means something: host, boot and pid namespace.
        pid, created: the process, and when it was created (seconds since 1970), as pids are used again.
        since: UTC, ISO 8601.
    """

    host: str
    machine: str
    pid: int
    created: float
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class LockLostError(StorageError):
    """A lock that this process held and lost: another run may be writing now."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that is held: the dataset, and the URI of the claim.

    It can be handed on to other processes and machines, which may only check it.
    """

    dataset: str
    claim: str

    def check(self) -> None:
        """Raises LockLostError when the lock was lost meanwhile; called before anything is published."""
        if not files.exists(self.claim):
            raise LockLostError(
                f"the lock on {self.dataset!r} was lost, because this process did not run or could not reach it "
                f"for {_STALE_SECONDS:g} s; another run may be writing there, so start this one again."
            )


@contextmanager
def held(dataset: str, wait_s: float = 0.0) -> Iterator[Lock]:
    """Hold the lock on a dataset while the `with` body runs. It is not re-entrant: a second `held` inside waits.

    Files that a killed run left half-written are removed first.

    Args:
        dataset: folder or URI; made when it is not there.
        wait_s: how long to wait for another run that has it, in seconds. Also with 0 it takes up to 3 s to
            tell an owner from somebody who is only looking.

    Raises:
        PointloomError: another run still has it after `wait_s`.
        StorageError: the place cannot be read or written.
    """
    lock = _acquire(dataset, wait_s)
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(lock, ended), name="lock of a dataset", daemon=True)
    heart.start()
    try:
        for name in files.remove_unfinished(dataset, _STALE_SECONDS):
            _LOG.info("removed %s from %s: a run that was killed left it half-written", name, dataset)
        yield lock
    finally:
        ended.set()
        # A beat under way would bring the claim back after it was removed.
        heart.join(_STALE_SECONDS)
        _withdraw(lock)


def _acquire(dataset: str, wait_s: float) -> Lock:
    began = time.monotonic()
    told = ""
    while True:
        lock = Lock(dataset, files.join(dataset, FOLDER, f"{uuid.uuid4().hex}.json"))
        rivals: list[tuple[str, float]] | None = None
        try:
            files.write_json(lock.claim, asdict(_myself()))
            rivals = _rivals(lock)
            if not rivals:
                return lock
        finally:
            if rivals != []:
                _withdraw(lock)
        waited, (name, age) = time.monotonic() - began, max(rivals, key=lambda rival: rival[1])
        if waited >= wait_s and (age > _LOOKING_SECONDS or waited > wait_s + 2 * _LOOKING_SECONDS):
            raise PointloomError(
                f"another run is writing {dataset!r} ({name}) and did not end within {wait_s:g} s; wait for it or "
                f"end it, then start this one again (if it was killed, its lock falls {_STALE_SECONDS:g} s later)."
            )
        if age > _LOOKING_SECONDS and name != told:
            told = name
            _LOG.info("waiting up to %g s for another run that is writing %s (%s)", wait_s, dataset, name)
        time.sleep(random.uniform(*_POLL_SECONDS))


def _rivals(lock: Lock) -> list[tuple[str, float]]:
    """Name and age (s) of the claims that stand against this one; the fallen ones are removed."""
    folder = files.join(lock.dataset, FOLDER)
    claims = [file for file in files.list_files(folder) if file.name.endswith(".json")]
    mine = files.name_of(lock.claim)
    own = [claim.modified for claim in claims if claim.name == mine]
    if not own:
        raise StorageError(
            f"{lock.claim!r} was written and is not listed, so {lock.dataset!r} cannot be locked; use a storage that "
            "lists what was written."
        )
    rivals = []
    for claim in claims:
        if claim.name == mine:
            continue
        owner = _read(claim.uri)
        unrenewed = own[0] - claim.modified
        if unrenewed > _STALE_SECONDS or (owner is not None and _is_gone(owner)):
            _LOG.warning("the lock of a run that was killed is removed from %s (%s)", lock.dataset, owner)
            files.delete(claim.uri)
        elif owner is not None:
            rivals.append((str(owner), _age(owner)))
        elif files.exists(claim.uri):
            rivals.append((f"claim {claim.name}, which cannot be read", unrenewed))
    return rivals


def _age(owner: Owner) -> float:
    # From the clocks of two machines; it only decides how soon a refusal is possible.
    return (datetime.now(UTC) - datetime.fromisoformat(owner.since)).total_seconds()


def _read(uri: str) -> Owner | None:
    try:
        return Owner(**files.read_json(uri))
    except (StorageError, TypeError):
        return None


def _withdraw(lock: Lock) -> None:
    try:
        files.delete(lock.claim)
    except StorageError as error:
        _LOG.warning("the lock on %s falls by itself in %g s: %s", lock.dataset, _STALE_SECONDS, error)


def _beat(lock: Lock, ended: threading.Event) -> None:
    while not ended.wait(_BEAT_SECONDS):
        try:
            # A claim that has fallen is not put back: another run may have the lock.
            if files.exists(lock.claim):
                files.touch(lock.claim)
        except StorageError as error:
            _LOG.warning("the lock on %s could not be renewed: %s", lock.dataset, error)


def _myself() -> Owner:
    process = psutil.Process()
    return Owner(
        socket.gethostname(), _machine(), process.pid, process.create_time(),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip


def _machine() -> str:
    # Containers may share the host's name but not its pids: a process of another one is not seen here.
    parts = [socket.gethostname()]
    with suppress(OSError):  # elsewhere than on Linux the host's name has to do
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            os.readlink("/proc/self/ns/pid"),
        ]
    return " ".join(parts)


def _is_gone(owner: Owner) -> bool:
    """Whether the owner is a process of this machine that has ended."""
    if owner.machine != _machine():
        return False
    try:
        process = psutil.Process(owner.pid)
        # Counted from the boot time, which moves a little when the clock is set.
        return abs(process.create_time() - owner.created) > 2 or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
