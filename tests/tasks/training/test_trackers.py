"""What reaches TensorBoard's files and MLflow."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from tasks.training.trackers import MLflowRun, TensorBoardFiles


def test_tensorboard_reads_every_figure_once_also_while_the_training_runs(tmp_path: Path) -> None:
    tracker = TensorBoardFiles(str(tmp_path / "events"))
    for step in (1, 2, 2):  # the second copy of an epoch had failed, and is made again
        tracker.add(step, {"val_miou": step / 4})
    assert list((tmp_path / "events").iterdir()), "before its end"
    tracker.close()
    (file,) = (tmp_path / "events").iterdir()
    assert scalars(file.read_bytes()) == [(1, "val_miou", 0.25), (2, "val_miou", 0.5)]


def scalars(content: bytes) -> list[tuple[int, str, float]]:
    """The figures of an event file: records of a length, its checksum, an event and its checksum."""
    figures, at = [], 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        event = Event.FromString(content[at + 12 : at + 12 + length])
        figures += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        at += length + 16
    return figures


class Calls(list):
    """Stands in for the module `mlflow`, which is no dependency: it notes what is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refuses: bool = False) -> None:
        module: Any = ModuleType("mlflow")
        module.start_run = lambda run_name: SimpleNamespace(info=SimpleNamespace(run_id=f"id of {run_name}"))
        module.log_params = self._refuse if refuses else self.append
        module.log_metrics = lambda values, step, run_id: self.append((run_id, step, values))
        module.end_run = self.append
        monkeypatch.setitem(sys.modules, "mlflow", module)

    def _refuse(self, _: Any) -> None:
        raise ConnectionError("no room")


def test_mlflow_gets_settings_and_figures_under_names_that_it_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    run = MLflowRun("abc", {"epochs": 5})
    run.add(3, {"iou/roof|wall": 0.5})
    run.close()
    assert calls == [{"epochs": 5}, ("id of abc", 3, {"iou_roof_wall": 0.5}), "FINISHED"]


def test_a_run_that_mlflow_refuses_does_not_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, refuses=True)
    with pytest.raises(ConnectionError, match="no room"):
        MLflowRun("abc", {})
    assert calls == ["FAILED"]
