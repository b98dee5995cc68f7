"""A scan outlives its actor; a scan that ends actor after actor is set aside, and the others are done."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from pointcloud.errors import PointloomError
from pointcloud.storage import ledger
from pointcloud.storage.ledger import DONE, QUARANTINED, Record
from tasks.collection.actors import actors, actors_ahead
from tasks.collection.plan import ScanToDo
from tasks.runtime.cluster import ray_session

STAGE = "segment"


class Worker:
    """Notes each scan that it begins with; ends without an error message over some."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if (folder / "no beginning").exists():
            os._exit(1)

    def ready(self) -> None:
        """Nothing to do."""

    def work(self, scan: ScanToDo) -> Record:
        """The record of a scan."""
        with (self._folder / scan.name).open("a") as note:
            note.write("x")
        if scan.name == "poison" or (scan.name == "once" and begun(self._folder, "once") == 1):
            os._exit(1)
        return Record(stage=STAGE, scan=scan.name, key=scan.key, state=DONE)


class Pairs:
    """Each scan waits until another one has begun; notes in which process it is worked on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ready(self) -> None:
        """Nothing to do."""

    def work(self, scan: ScanToDo) -> Record:
        """The record of a scan; none without a second one within a minute."""
        (self._folder / scan.name).write_text(str(os.getpid()))
        other = f"{int(scan.name) ^ 1}"
        for _ in range(600):
            if (self._folder / other).exists():
                return Record(stage=STAGE, scan=scan.name, key=scan.key, state=DONE)
            time.sleep(0.1)
        raise TimeoutError(f"{scan.name} was left alone")


def begun(folder: Path, scan: str) -> int:
    """How often an actor began with a scan."""
    return len((folder / scan).read_text())


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_session(2):
        yield


def run(
    folder: Path,
    names: list[str],
    stop_after: int = 1000,
    kind: type = Worker,
    num_actors: int = 2,
    at_once: int = 1,
) -> list[Record]:
    todo = [ScanToDo(name=name, uri=f"/{name}", key="k") for name in names]
    ended: list[Record] = []
    worker = actors(
        STAGE, kind, (folder,), num_actors, {"num_cpus": 1},
        lambda record: ledger.write(str(folder), record), at_once,
    )  # fmt: skip
    for record in worker(todo, lambda: len(ended) >= stop_after):
        ended.append(record)
    return ended


def test_scans_outlive_actors(cluster: None, tmp_path: Path) -> None:
    names = ["a", "poison", "b", "once", *(str(n) for n in range(20))]
    records = {record.scan: record for record in run(tmp_path, names)}
    assert records.keys() == set(names)
    assert {name for name, record in records.items() if record.state != DONE} == {"poison"}
    assert (begun(tmp_path, "once"), begun(tmp_path, "poison")) == (2, 3)
    assert "scan '/poison': 3 processes ended without an error message" in records["poison"].error
    assert ledger.read_all(str(tmp_path), STAGE) == {"poison": records["poison"]}
    assert records["poison"].state == QUARANTINED


def test_an_actor_works_on_two_scans_at_once(cluster: None, tmp_path: Path) -> None:
    names = [str(n) for n in range(6)]
    records = run(tmp_path, names, kind=Pairs, num_actors=1, at_once=2)
    assert {record.scan: record.state for record in records} == dict.fromkeys(names, DONE)


def test_no_actor_takes_a_second_scan_while_another_has_none(cluster: None, tmp_path: Path) -> None:
    run(tmp_path, ["0", "1"], kind=Pairs, at_once=2)
    assert (tmp_path / "0").read_text() != (tmp_path / "1").read_text()


def test_what_shares_an_actor_with_a_scan_that_ends_it_is_done(cluster: None, tmp_path: Path) -> None:
    names = ["poison", *(str(n) for n in range(12))]
    records = {record.scan: record for record in run(tmp_path, names, num_actors=1, at_once=2)}
    assert {name: record.state for name, record in records.items()} == {
        name: QUARANTINED if name == "poison" else DONE for name in names
    }
    assert begun(tmp_path, "poison") == 3
    assert max(begun(tmp_path, name) for name in names[1:]) <= 2, (
        "only one of them was beside it, and only once"
    )


class Told:
    """Says which process it is in, and what it was told when it was made and when its flow was there."""

    def __init__(self, made: str) -> None:
        self._told = [str(os.getpid()), made]

    def pid(self) -> str:
        """The number of its process."""
        return self._told[0]

    def ready(self, begun: str) -> None:
        """Take what was not known before."""
        self._told.append(begun)

    def work(self, scan: ScanToDo) -> Record:
        """A record with all of it."""
        return Record(stage=STAGE, scan=scan.name, key=",".join(self._told), state=DONE)


def test_actors_that_were_started_ahead_are_used_first(cluster: None) -> None:
    ahead = actors_ahead(Told, ("made",), 1, {"num_cpus": 1})
    worker = actors(STAGE, Told, ("made",), 1, {"num_cpus": 1}, lambda _: None, ahead=ahead, ready=("begun",))
    pid = ray.get(ahead[0].pid.remote())
    (record,) = worker([ScanToDo(name="a", uri="/a", key="k")], lambda: False)
    assert record.key == f"{pid},made,begun"


def test_a_run_that_is_over_begins_with_no_other_scan(cluster: None, tmp_path: Path) -> None:
    records = run(tmp_path, [str(n) for n in range(20)], stop_after=3)
    assert 3 <= len(records) <= 5, "each actor may have been at one"
    assert ray.is_initialized()


def test_actors_that_end_before_they_begin_end_the_run(cluster: None, tmp_path: Path) -> None:
    (tmp_path / "no beginning").touch()
    with pytest.raises(PointloomError, match="3 actors in a row ended before they began"):
        run(tmp_path, ["a", "b", "c"])
