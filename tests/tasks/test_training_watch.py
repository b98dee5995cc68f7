"""What is drawn and recorded of a training: whole SVGs, the epochs' figures, and what is not installed is named."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.dom.minidom import parseString

import pytest

from tasks.training_pictures import draw_confusion, draw_curves
from tasks.training_watch import MLflowRun, TensorBoardFiles, scalars, trackers

LOGGER = logging.getLogger("pointloom.tests")


def epoch(number: int, miou: float | None = 0.5) -> dict[str, Any]:
    return {
        "epoch": number, "train_loss": 1.0 / number, "val_loss": 2.0 / number, "val_miou": miou,
        "val_iou": [miou, None], "learning_rate": 1e-3, "seconds": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize("history", [[], [epoch(1)], [epoch(1, None), epoch(2), epoch(3)]], ids=len)
def test_curves_are_a_whole_svg_at_any_time(history: list[dict[str, Any]]) -> None:
    lines = parseString(draw_curves(history)).getElementsByTagName("polyline")
    drawn = [len(line.getAttribute("points").split()) for line in lines]
    assert drawn == [len(history), len(history), sum(e["val_miou"] is not None for e in history)]


def test_the_confusion_shows_the_share_of_every_true_class() -> None:
    picture = draw_confusion([[3, 1, 0], [0, 0, 0]], ["roof & wall", "<ground>"])
    texts = [t.firstChild.data for t in parseString(picture).getElementsByTagName("text")]  # type: ignore[union-attr]
    assert {"roof & wall", "<ground>", "other", "75", "25", "0", "–"} <= set(texts)


def test_what_is_undefined_is_not_recorded() -> None:
    values = scalars(epoch(1, None), ["roof", "ground"])
    assert set(values) == {"train_loss", "val_loss", "learning_rate", "seconds"}
    assert scalars(epoch(1), ["roof", "ground"])["iou/roof"] == 0.5


def test_event_files_hold_every_epoch_before_the_training_ends(tmp_path: Path) -> None:
    files = TensorBoardFiles(str(tmp_path / "events"))
    sizes = []
    for number in range(1, 100):  # tensorboardX writes in a thread of its own, when that gets its turn
        files.add(number, scalars(epoch(number), ["roof", "ground"]))
        (file,) = (tmp_path / "events").iterdir()
        sizes.append(file.stat().st_size)
        if 0 < sizes[0] < sizes[-1]:
            break
        time.sleep(0.1)
    files.close()
    assert 0 < sizes[0] < sizes[-1]
    assert file.read_bytes().count(b"iou/roof") == len(sizes)


def test_mlflow_is_used_when_its_server_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    fake = ModuleType("mlflow")
    fake.start_run = lambda run_name: SimpleNamespace(info=SimpleNamespace(run_id=f"id of {run_name}"))  # type: ignore[attr-defined]
    fake.log_params = calls.append  # type: ignore[attr-defined]
    fake.log_metrics = lambda values, step, run_id: calls.append((values, step, run_id))  # type: ignore[attr-defined]
    fake.end_run = calls.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    _, run = trackers(str(tmp_path), "abc", {"epochs": 2}, LOGGER)
    assert isinstance(run, MLflowRun)
    run.add(1, {"iou/roof": 0.5})
    run.close()
    run.close(failed=True)
    assert calls == [{"epochs": 2}, ({"iou_roof": 0.5}, 1, "id of abc"), "FINISHED", "FAILED"]


def test_an_mlflow_server_that_is_down_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(run_name: str) -> None:
        raise ConnectionError("connection refused")

    fake = ModuleType("mlflow")
    fake.start_run = refuse  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert len(trackers(str(tmp_path), "abc", {}, LOGGER)) == 1
    assert "http://localhost:5000 does not take one (connection refused)" in caplog.text


@pytest.mark.parametrize(
    ("missing", "named"), [("mlflow", "mlflow-skinny"), ("tensorboardX", "pip install tensorboardX")]
)
def test_a_tracker_that_is_not_installed_is_named_and_left_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    missing: str,
    named: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setitem(sys.modules, missing, None)
    found = trackers(str(tmp_path), "abc", {}, LOGGER)
    assert len(found) == (1 if missing == "mlflow" else 0)
    assert named in caplog.text


def test_without_mlflow_uri_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert len(trackers(str(tmp_path), "abc", {}, LOGGER)) == 1
    assert caplog.text == ""
