"""What is drawn of a training: whole SVGs, and the epochs' figures."""

from __future__ import annotations

from typing import Any
from xml.dom.minidom import parseString

import pytest

from tasks.prefect_ui.training_pictures import draw_confusion, draw_curves
from tasks.prefect_ui.training_watch import scalars


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
    texts = [t.firstChild.data for t in parseString(picture).getElementsByTagName("text")]
    assert {"roof & wall", "<ground>", "other", "75", "25", "0", "–"} <= set(texts)


def test_what_is_undefined_is_not_recorded() -> None:
    values = scalars(epoch(1, None), ["roof", "ground"])
    assert set(values) == {"train_loss", "val_loss", "learning_rate", "seconds"}
    assert scalars(epoch(1), ["roof", "ground"])["iou/roof"] == 0.5
