"""What a training goes on from, with whatever Ray Train's note of its epochs has become."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from models.training.state_record import RECORD, WEIGHTS, pack
from tasks.training.epochs_kept import TrainRun, finish, read_state, run_of

LOGGER = logging.getLogger("pointloom.tests")
NOTE = "checkpoint_manager_snapshot.json"


def keep(run: TrainRun, epochs: int) -> Path:
    """An epoch as Ray Train keeps it."""
    folder = Path(run.folder) / f"checkpoint_2026-01-01_00-00-{epochs:02d}.000000"
    folder.mkdir(parents=True)
    weights, record = pack({"history": [{"epoch": n + 1} for n in range(epochs)], "best": {}})
    (folder / WEIGHTS).write_bytes(weights)
    (folder / RECORD).write_bytes(record)
    return folder


def note(run: TrainRun, *folders: Path) -> Path:
    file = Path(run.folder) / NOTE
    results = [{"checkpoint_dir_name": folder.name, "metrics": {}} for folder in folders]
    file.write_text(json.dumps({"checkpoint_results": results}))
    return file


@pytest.fixture
def run(tmp_path: Path) -> TrainRun:
    return TrainRun(str(tmp_path / "out"), "abc")


def test_nothing_is_known_before_the_first_epoch(run: TrainRun) -> None:
    assert (run.noted(), run.last(), run.epochs_done(), run.mend(LOGGER)) == (None, None, 0, None)


def test_what_is_noted_is_ray_trains_and_the_rest_is_removed(
    run: TrainRun, caplog: pytest.LogCaptureFixture
) -> None:
    orphan, first, second, half = (keep(run, epochs) for epochs in (1, 2, 3, 4))
    note(run, first, second)
    assert run.last() == str(second)
    assert run.epochs_done() == 3
    assert run.mend(LOGGER) is None, "Ray Train knows where to go on"
    assert sorted(Path(run.folder).glob("checkpoint_*/")) == [first, second]
    assert not orphan.exists()
    assert not half.exists()
    assert caplog.text == ""
    state: dict[str, Any] = read_state(str(second))
    assert len(state["history"]) == 3


@pytest.mark.parametrize("damage", ["", '{"checkpoint_results": [', "[]", "{}"])
def test_a_damaged_note_is_set_aside_for_the_newest_whole_epoch(
    run: TrainRun, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, half = (keep(run, epochs) for epochs in (1, 2, 3))
    (half / WEIGHTS).write_bytes((half / WEIGHTS).read_bytes()[:-1])
    file = note(run, second, half)
    file.write_text(damage)
    assert run.mend(LOGGER) == str(second)
    assert "goes on from epoch 2" in caplog.text
    assert not file.exists()
    assert file.with_name(f"{NOTE}.damaged").read_text() == damage
    assert list(Path(run.folder).glob("checkpoint_*/")) == [second]
    assert not first.exists()
    # Killed again before Ray Train notes anything, it still goes on from there.
    assert run.mend(LOGGER) == str(second)


def test_a_note_of_an_epoch_that_is_gone_is_damaged_too(
    run: TrainRun, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = keep(run, 1), keep(run, 2)
    note(run, first, second)
    (second / RECORD).unlink()
    assert run.mend(LOGGER) == str(first)
    (first / RECORD).write_text("")
    note(run, first)
    assert run.mend(LOGGER) is None
    assert "starts anew" in caplog.text
    assert not first.exists()


def test_a_training_anew_is_remembered_until_it_ends(tmp_path: Path) -> None:
    out = str(tmp_path)
    plain = run_of(out, "key", fresh=False)
    assert plain.name == "key"
    keep(plain, 1)
    anew = run_of(out, "key", fresh=True)
    assert anew.name != "key"
    assert run_of(out, "key", fresh=True) == run_of(out, "key", fresh=False) == anew
    assert run_of(out, "other", fresh=False).name == "other"
    keep(anew, 1)
    finish(anew)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [anew.name], "what it replaced is gone"
    assert run_of(out, "key", fresh=True).name not in ("key", anew.name)
