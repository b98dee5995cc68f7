"""What a study says while it runs and at its end: the same figures in the table, in Markdown and in the pictures."""

from __future__ import annotations

from typing import Any
from xml.dom.minidom import parseString

import numpy as np
import pytest

from models.metrics import Scores
from models.network.ablations import choose_rows
from models.network.configurations import DeepGCNConfig
from models.network.deepgcn import DeepGCN
from models.recipes import TrainConfig
from models.weights.checkpoint import Checkpoint
from pointcloud.blocks.features import FeatureStatistics
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labels import ClassLabel, LabelScheme
from tasks.studies.report import report_ablation, report_folds
from tasks.studies.study import Outcome, Training
from tasks.studies.table import num_parameters
from tasks.training.worker_loop import TrainJob

NAMES = ("ground", "roof|wall")
SCHEME = LabelScheme("two", tuple(ClassLabel(name, (n,), n, "#888888") for n, name in enumerate(NAMES)))
BASE = DeepGCNConfig(in_channels=3, num_classes=2, num_layers=3, channels=4, k=4, fusion_channels=8)
CONFUSIONS = ([[8, 2, 0], [1, 9, 0]], [[5, 0, 1], [0, 2, 0]])


def training(name: str, network: DeepGCNConfig = BASE, group: str = "folds") -> Training:
    job = TrainJob(
        dataset="blocks", out=f"out/{name}", network=network, features=("xyz",), training=TrainConfig(epochs=2),
        num_workers=1, cpus_per_worker=1, wait_s=0.0, fresh=False,
    )  # fmt: skip
    return Training(name=name, group=group, about=f"about {name}", job=job)


def done(planned: Training, val_miou: float, confusion: list[list[int]] | None = None) -> Outcome:
    history = [
        {"epoch": n, "train_loss": 1.0 / n, "val_miou": miou, "val_iou": [miou, None], "seconds": 2.0 * n}
        for n, miou in ((1, val_miou), (2, val_miou / 2))
    ]
    metrics: dict[str, Any] = {"val_miou": val_miou, "epoch": 1}
    if confusion is not None:
        scores = Scores.from_confusion(np.array(confusion), NAMES)
        metrics["test"] = {"confusion": confusion, **scores.to_dict()}
    checkpoint = Checkpoint(
        network=planned.job.network,
        state={},
        block_config=BlockConfig(),
        label_scheme=SCHEME,
        features=("xyz",),
        statistics=FeatureStatistics({}, {}),
        metrics=metrics,
        history=history,
    )
    return Outcome(planned, checkpoint)


def test_folds_are_averaged_and_summed() -> None:
    outcomes = [done(training(f"Area_{n}"), 0.5, confusion) for n, confusion in enumerate(CONFUSIONS)]
    report = report_folds([*outcomes, Outcome(training("Area_2"), error="the loss became NaN.")], NAMES)
    rows = report.table.to_pylist()
    assert [row["name"] for row in rows] == [
        "Area_0",
        "Area_1",
        "Area_2",
        "mean of the folds",
        "the folds together",
    ]
    assert [row["state"] for row in rows[:3]] == ["done", "done", "failed"]
    scores = [Scores.from_confusion(np.array(c), NAMES) for c in CONFUSIONS]
    assert rows[3]["test_miou"] == pytest.approx(np.mean([s.miou for s in scores]))
    assert rows[3]["test_iou"]["ground"] == pytest.approx(np.mean([s.iou[0] for s in scores]))
    pooled = Scores.from_confusion(np.add(*CONFUSIONS), NAMES)
    assert rows[4]["test_confusion"] == np.add(*CONFUSIONS).tolist()
    assert (rows[4]["test_miou"], rows[4]["test_points"]) == (pooled.miou, 28)
    assert rows[0]["test_oa"] == 0.85
    assert "| Area_0 | 73.9 | 85.0 |" in report.markdown
    assert pooled.to_markdown() in report.markdown
    assert "Area_2 failed: the loss became NaN." in report.markdown
    for picture in report.pictures.values():
        parseString(picture)


def test_nothing_trained_yet_is_a_whole_report() -> None:
    for report in (
        report_folds([Outcome(training("a"))], NAMES),
        report_ablation([Outcome(training("reference", group="reference"))], NAMES),
    ):
        assert [row["state"] for row in report.table.to_pylist()] == ["to do"]
        assert "Still to be trained" in report.markdown
        for picture in report.pictures.values():
            parseString(picture)


def test_an_ablation_counts_against_its_reference() -> None:
    rows = choose_rows(["reference", "residual-7", "plain-7", "residual-14", "plain-14", "mr"])
    planned = [training(row.name, row.change(BASE), row.group) for row in rows]
    outcomes = [done(each, 0.5 + 0.01 * n) for n, each in enumerate(planned)]
    outcomes[-1] = Outcome(planned[-1])
    report = report_ablation(outcomes, NAMES)
    found = {row["name"]: row for row in report.table.to_pylist()}
    assert found["plain-7"]["layer"] == "plain"
    assert found["plain-14"]["dilations"] == [1] * 14
    assert found["residual-7"]["val_miou_by_epoch"] == pytest.approx([0.51, 0.255])
    assert found["reference"]["val_iou"] == {"ground": 0.5, "roof|wall": None}
    assert found["reference"]["test_miou"] is None
    assert found["mr"]["state"] == "to do"
    lines = report.markdown.splitlines()
    (plain,) = [line for line in lines if line.startswith("| plain-7 ")]
    assert "| 1 of 2 | 53.0 | +3.0 | – | – | 3.0 |" in plain
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    # Two panels for depth (the reference and four rows, plain ones dashed), two for the operators.
    curves = parseString(report.pictures["curves"]).getElementsByTagName("polyline")
    assert len(curves) == 2 * 5 + 2 * 2
    dashed = [line for line in curves if line.hasAttribute("stroke-dasharray")]
    assert len(dashed) == 2 * 2
    depth_7 = {line.getAttribute("stroke") for line in dashed}
    assert len(depth_7) == 2, "each depth has a colour"


def test_parameters_are_counted_without_making_them() -> None:
    assert num_parameters(BASE) == sum(p.numel() for p in DeepGCN(BASE).parameters())
