"""A scan outlives its actor; a scan that ends actor after actor is set aside, and the others are done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from pointcloud.errors import PointloomError
from pointcloud.storage import ledger
from pointcloud.storage.ledger import DONE, QUARANTINED, Record
from tasks.collection.actors import actors
from tasks.collection.plan import ScanToDo
from tasks.runtime.cluster import ray_session

STAGE = "segment"


class Worker:
    """Notes each scan that it begins with; ends without a word over some."""

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


def begun(folder: Path, scan: str) -> int:
    """How often an actor began with a scan."""
    return len((folder / scan).read_text())


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_session(2):
        yield


def run(folder: Path, names: list[str], stop_after: int = 1000) -> list[Record]:
    todo = [ScanToDo(name=name, uri=f"/{name}", key="k") for name in names]
    ended: list[Record] = []
    worker = actors(
        STAGE, Worker, (folder,), 2, {"num_cpus": 1},
        lambda record: ledger.write(str(folder), record),
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
    assert "scan '/poison': 3 processes ended without a word" in records["poison"].error
    assert ledger.read_all(str(tmp_path), STAGE) == {"poison": records["poison"]}
    assert records["poison"].state == QUARANTINED


def test_a_run_that_is_over_begins_with_no_other_scan(cluster: None, tmp_path: Path) -> None:
    records = run(tmp_path, [str(n) for n in range(20)], stop_after=3)
    assert 3 <= len(records) <= 5, "each actor may have been at one"
    assert ray.is_initialized()


def test_actors_that_end_before_they_begin_end_the_run(cluster: None, tmp_path: Path) -> None:
    (tmp_path / "no beginning").touch()
    with pytest.raises(PointloomError, match="3 actors in a row ended before they began"):
        run(tmp_path, ["a", "b", "c"])
