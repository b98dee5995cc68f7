"""Epochs reach TensorBoard files and MLflow; one that is not there, goes away or keeps silent holds up no training."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tasks.prefect_ui.training_watch import scalars
from tasks.training.recorder import Recorder, recorders
from tasks.training.trackers import MLflowRun, TensorBoardFiles
from tests.tasks.prefect_ui.test_training_watch import epoch

LOGGER = logging.getLogger("pointloom.tests")
NAMES = ("roof", "ground")
EPOCHS = [epoch(number) for number in range(1, 6)]


class Server:
    """What stands in for MLflow, which is no dependency: a module whose server may refuse or keep silent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Any] = []
        self.refuses: Callable[[int], bool] = lambda _: False
        self.answers = threading.Event()
        self.answers.set()
        module: Any = ModuleType("mlflow")
        module.start_run = self._start_run
        module.log_params = self.calls.append
        module.log_metrics = self._log_metrics
        module.end_run = self.calls.append
        monkeypatch.setitem(sys.modules, "mlflow", module)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")

    def _start_run(self, run_name: str) -> Any:
        self._asked(0)
        return SimpleNamespace(info=SimpleNamespace(run_id=f"id of {run_name}"))

    def _log_metrics(self, values: dict[str, float], step: int, run_id: str) -> None:
        self._asked(step)
        self.calls.append(step)
        assert run_id == "id of abc"
        assert values["iou_roof"] == 0.5

    def _asked(self, step: int) -> None:
        self.answers.wait()
        if self.refuses(step):
            raise ConnectionError("connection refused\nand forty lines more")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


def to_mlflow() -> Recorder:
    return Recorder(MLflowRun, lambda: MLflowRun("abc", {"epochs": 5}), NAMES, LOGGER)


def finish(recorder: Recorder, failed: bool = False, seconds: float = 20.0) -> None:
    recorder.end(failed)
    recorder.wait(time.monotonic() + seconds)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.mark.parametrize("failed", [False, True])
def test_mlflow_has_every_epoch(server: Server, caplog: pytest.LogCaptureFixture, failed: bool) -> None:
    recorder = to_mlflow()
    for number in (
        2,
        2,
        3,
        2,
        5,
    ):  # a training that goes on begins with several, and one is lost and done again
        recorder.record(EPOCHS[:number])
    finish(recorder, failed)
    assert server.calls == [{"epochs": 5}, 1, 2, 3, 4, 5, "FAILED" if failed else "FINISHED"]
    assert caplog.records == []


def test_a_server_that_goes_away_is_said_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.refuses = lambda step: step >= 2
    recorder = to_mlflow()
    for number in range(1, 6):
        recorder.record(EPOCHS[:number])
        time.sleep(0.02)
    finish(recorder)
    assert server.calls == [{"epochs": 5}, 1, "FINISHED"]
    assert warnings(caplog) == [
        "MLflow takes no more epochs (connection refused); the training goes on, and what is missing there is tried "
        "again"
    ]


def test_a_server_that_comes_back_gets_what_it_missed(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.refuses = lambda step: step >= 2
    recorder = to_mlflow()
    recorder.record(EPOCHS[:3])
    until(lambda: warnings(caplog) != [])
    server.refuses = lambda _: False
    finish(recorder)
    assert server.calls == [{"epochs": 5}, 1, 2, 3, "FINISHED"]
    assert [r.getMessage() for r in caplog.records][1:] == ["MLflow answers again, and has what it missed"]


def test_a_server_that_keeps_silent_holds_up_nobody(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, mlflow = recorders(str(tmp_path), "abc", {}, NAMES, LOGGER)
    mlflow.record(EPOCHS[:1])
    until(lambda: server.calls == [{}, 1])
    server.answers.clear()
    started = time.monotonic()
    for number in range(2, 6):
        for recorder in (mlflow, files):
            recorder.record(EPOCHS[:number])
    finish(files)
    finish(mlflow, seconds=0.1)
    assert time.monotonic() - started < 10
    assert "MLflow does not answer; the last epochs may be missing there, and nowhere else" in warnings(
        caplog
    )
    (events,) = tmp_path.iterdir()
    assert events.read_bytes().count(b"iou/roof") == 4
    server.answers.set()


def test_after_a_failure_it_rests_ten_times_as_long_as_that_took(server: Server) -> None:
    asked: list[float] = []
    now = 100.0

    def refuses(step: int) -> bool:
        nonlocal now
        if step:
            asked.append(now)
            now += 0.5
        return bool(step)

    server.refuses = refuses
    recorder = Recorder(MLflowRun, lambda: MLflowRun("abc", {}), NAMES, LOGGER, clock=lambda: now)
    recorder.record(EPOCHS[:1])
    until(lambda: len(asked) == 1)
    for now in (100.5, 103.0, 105.4):  # noqa: B007
        recorder.record(EPOCHS[:1])
        time.sleep(0.01)
    assert asked == [100.0]
    now = 105.6
    recorder.record(EPOCHS[:1])
    until(lambda: len(asked) == 2)
    assert asked == [100.0, 105.6]
    finish(recorder)
    assert len(asked) == 3, "the last attempt is made at the end"


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_folder_that_refuses_is_said_once_and_gets_every_figure_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, comes_back: bool
) -> None:
    folder = tmp_path / "events"
    folder.write_text("in the way")
    (recorder,) = recorders(str(folder), "abc", {}, NAMES, LOGGER)
    for number in range(1, 4):
        recorder.record(EPOCHS[:number])
        until(lambda: warnings(caplog) != [])
    if comes_back:
        folder.unlink()
    finish(recorder)
    (said,) = warnings(caplog)
    assert said.startswith("TensorBoard takes no more epochs (")
    if comes_back:
        (events,) = folder.iterdir()
        assert events.read_bytes().count(b"iou/roof") == 3


def test_event_files_hold_every_epoch_before_the_training_ends(tmp_path: Path) -> None:
    files = TensorBoardFiles(str(tmp_path / "events"))
    sizes = []
    for number in range(1, 100):  # tensorboardX writes in a thread of its own, when that gets its turn
        files.add(number, scalars(epoch(number), NAMES))
        (file,) = (tmp_path / "events").iterdir()
        sizes.append(file.stat().st_size)
        if 0 < sizes[0] < sizes[-1]:
            break
        time.sleep(0.1)
    files.close()
    assert 0 < sizes[0] < sizes[-1]
    assert file.read_bytes().count(b"iou/roof") == len(sizes)


def test_a_server_that_is_down_from_the_start_is_named_and_left_out(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.refuses = lambda _: True
    recorder = to_mlflow()
    recorder.record(EPOCHS[:1])
    finish(recorder)
    assert warnings(caplog) == ["nothing is recorded in MLflow: it accepts no run (connection refused)"]
    assert server.calls == []


@pytest.mark.parametrize(
    ("missing", "named"), [("mlflow", "mlflow-skinny"), ("tensorboardX", "tensorboardX")]
)
def test_what_is_not_installed_is_named_and_left_out(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    missing: str, named: str,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, missing, None)
    for recorder in recorders(str(tmp_path), "abc", {}, NAMES, LOGGER):
        finish(recorder)
    (said,) = warnings(caplog)
    assert said.endswith(f"pip install {named}")


def test_without_mlflow_uri_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (recorder,) = recorders(str(tmp_path), "abc", {}, NAMES, LOGGER)
    finish(recorder)
    assert caplog.text == ""
