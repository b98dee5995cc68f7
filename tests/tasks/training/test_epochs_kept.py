"""What a training goes on from, whatever has become of the epochs it kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models.training.state_record import RECORD, WEIGHTS
from pointcloud.errors import StorageError
from pointcloud.storage import files
from tasks.training.epochs_kept import TrainRun, finish, read_state, run_of


def state_after(epochs: int) -> dict[str, Any]:
    history = [{"epoch": n + 1} for n in range(epochs)]
    return {"history": history, "best": {"weight": torch.full((3,), float(epochs))}}


def names(run: TrainRun) -> list[str]:
    return sorted(path.name for path in Path(run.folder).glob("epoch_*/"))


@pytest.fixture
def run(tmp_path: Path) -> TrainRun:
    return TrainRun(str(tmp_path / "out"), "abc")


def test_nothing_is_known_before_the_first_epoch(run: TrainRun) -> None:
    assert (run.newest(), run.epochs_done(), run.is_shared()) == (None, 0, False)
    run.start()
    assert (run.newest(), run.epochs_done(), run.is_shared()) == (None, 0, True)


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_the_last_two_epochs_are_kept(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    out = files.join(request.getfixturevalue("bucket"), "out") if place == "bucket" else str(tmp_path)
    run = TrainRun(out, "abc")
    for epochs in (9, 10, 11):
        run.keep(state_after(epochs))
        newest = run.newest()
        assert newest is not None
        assert files.name_of(newest) == f"epoch_{epochs:04d}"
        assert run.epochs_done() == epochs
        state = read_state(newest)
        assert state["history"] == state_after(epochs)["history"]
        assert torch.equal(state["best"]["weight"], state_after(epochs)["best"]["weight"])
    kept = {file.name for file in files.list_files(run.folder, hidden=True)}
    assert kept == {f"epoch_{n:04d}/{name}" for n in (10, 11) for name in (RECORD, WEIGHTS)}


def test_epochs_are_ordered_by_number(run: TrainRun) -> None:
    for epochs in (9_999, 10_000):
        run.keep(state_after(epochs))
    assert run.epochs_done() == 10_000


@pytest.mark.parametrize(
    "damage", ["no record", "no weights", "half a record", "other record", "half the weights"]
)
def test_an_epoch_that_is_not_complete_is_passed_over_and_written_again(run: TrainRun, damage: str) -> None:
    for epochs in (1, 2):
        run.keep(state_after(epochs))
    weights, record = (Path(run.folder, "epoch_0002", name) for name in (WEIGHTS, RECORD))
    if damage in ("no record", "no weights"):
        (record if damage == "no record" else weights).unlink()
    elif damage == "half the weights":
        weights.write_bytes(weights.read_bytes()[:-1])
    else:
        record.write_bytes(record.read_bytes()[:20] if damage == "half a record" else b"[]")
    assert run.epochs_done() == 1
    run.keep(state_after(2))
    assert run.epochs_done() == 2
    assert names(run) == ["epoch_0001", "epoch_0002"]


def test_a_place_that_cannot_be_written_is_said(run: TrainRun) -> None:
    Path(run.out).mkdir()
    Path(run.out, "runs").write_text("a file")
    with pytest.raises(StorageError, match="cannot write"):
        run.keep(state_after(1))


def test_a_training_anew_is_remembered_until_it_ends(tmp_path: Path) -> None:
    out = str(tmp_path)
    plain = run_of(out, "key", fresh=False)
    assert plain.name == "key"
    plain.keep(state_after(1))
    anew = run_of(out, "key", fresh=True)
    assert anew.name != "key"
    assert run_of(out, "key", fresh=True) == run_of(out, "key", fresh=False) == anew
    assert run_of(out, "other", fresh=False).name == "other"
    anew.keep(state_after(1))
    finish(anew)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [anew.name], "what it replaced is gone"
    assert run_of(out, "key", fresh=True).name not in ("key", anew.name)
