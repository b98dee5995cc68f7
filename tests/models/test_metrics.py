"""Scores against hand-computed values, against torchmetrics, and by the properties they must have."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_f1_score, multiclass_jaccard_index

from models import metrics
from models.metrics import Scores, confusion
from pointcloud.labels import IGNORE

NAMES = ("ground", "vegetation", "building")


def labels(*values: int) -> np.ndarray:
    return np.array(values, np.int8)


def test_counts_by_hand_rows_are_truth_and_other_is_last() -> None:
    truth = labels(0, 0, 0, 1, 1, 2, IGNORE, IGNORE)
    predicted = labels(0, 0, 1, 1, IGNORE, 0, 2, IGNORE)
    found = confusion(predicted, truth, 3)
    assert found.dtype == np.int64
    assert found.tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0]]


def test_scores_by_hand() -> None:
    counts = np.array([[2, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0]])
    scores = Scores.from_confusion(counts, NAMES)
    assert scores.iou == (2 / 4, 1 / 3, 0.0)
    assert scores.precision == (2 / 3, 1 / 2, None)  # building is never predicted
    assert scores.recall == (2 / 3, 1 / 2, 0.0)
    assert scores.f1 == (4 / 6, 2 / 4, 0.0)
    assert scores.support == (3, 2, 1)
    assert scores.predicted == (3, 2, 0)
    assert scores.miou == pytest.approx((1 / 2 + 1 / 3) / 3)
    assert scores.overall_accuracy == 3 / 6
    assert (scores.num_scored, scores.num_other, scores.absent) == (6, 1, ())


def test_an_absent_class_is_left_out_and_said() -> None:
    scores = Scores.from_confusion(confusion(labels(0, 0, 1), labels(0, 1, 1), 3), NAMES)
    assert scores.iou == (1 / 2, 1 / 2, None)
    assert scores.miou == 1 / 2
    assert scores.absent == ("building",)
    assert "left out, for no point has or was given the class: building" in scores.to_markdown()


def test_a_class_predicted_but_never_true_counts_as_zero() -> None:
    scores = Scores.from_confusion(confusion(labels(0, 2), labels(0, 0), 3), NAMES)
    assert scores.iou == (1 / 2, None, 0.0)
    assert scores.recall == (1 / 2, None, None)
    assert scores.miou == 1 / 4


def test_not_answering_is_an_error_not_an_escape() -> None:
    truth = labels(0, 0, 1, 1)
    answered = Scores.from_confusion(confusion(labels(0, 0, 1, 0), truth, 2), NAMES[:2])
    silent = Scores.from_confusion(confusion(labels(0, 0, 1, IGNORE), truth, 2), NAMES[:2])
    assert silent.num_scored == answered.num_scored == 4
    assert silent.overall_accuracy == answered.overall_accuracy == 3 / 4
    assert silent.recall == answered.recall
    assert silent.precision == (1.0, 1.0)  # it is a false positive of no class


def test_nothing_scored() -> None:
    empty = labels()
    scores = Scores.from_confusion(confusion(empty, empty, 2), NAMES[:2])
    assert scores.miou is None
    assert scores.overall_accuracy is None
    assert scores.absent == NAMES[:2]
    assert "0 points scored" in scores.to_markdown()


pairs = st.integers(1, 6).flatmap(
    lambda c: st.tuples(
        st.just(c), st.lists(st.tuples(st.integers(-1, c - 1), st.integers(-1, c - 1)), max_size=60)
    )
)


@settings(max_examples=60, deadline=None)
@given(pairs, st.integers(0, 60))
def test_confusions_add_up_and_hold_every_scored_point(case: tuple[int, list], cut: int) -> None:
    num_classes, points = case
    predicted, truth = np.array(points, np.int64).reshape(-1, 2).T
    whole = confusion(predicted, truth, num_classes)
    parts = [confusion(predicted[s], truth[s], num_classes) for s in (slice(0, cut), slice(cut, None))]
    assert (parts[0] + parts[1] == whole).all()
    assert whole.sum() == np.count_nonzero(truth != IGNORE)
    assert whole.shape == (num_classes, num_classes + 1)
    expected = np.zeros_like(whole)
    for p, t in points:
        if t != IGNORE:
            expected[t, p] += 1  # IGNORE is -1: the last column
    assert (whole == expected).all()


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_every_share_lies_in_0_to_1_and_iou_below_f1(case: tuple[int, list]) -> None:
    num_classes, points = case
    predicted, truth = np.array(points, np.int64).reshape(-1, 2).T
    names = [f"class {i}" for i in range(num_classes)]
    scores = Scores.from_confusion(confusion(predicted, truth, num_classes), names)
    for iou, f1 in zip(scores.iou, scores.f1, strict=True):
        assert (iou is None) == (f1 is None)
        assert iou is None or (0 <= iou <= f1 <= 1 and f1 == pytest.approx(2 * iou / (1 + iou)))
    assert json.loads(json.dumps(scores.to_dict(), allow_nan=False))["num_scored"] == scores.num_scored


def test_agrees_with_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(3)
    truth = torch.randint(0, 5, (4000,), generator=generator)
    predicted = torch.where(
        torch.rand(4000, generator=generator) < 0.7, truth, torch.randint(0, 5, (4000,), generator=generator)
    )
    truth[::7] = IGNORE
    scores = Scores.from_confusion(confusion(predicted, truth, 5), [str(i) for i in range(5)])
    iou = multiclass_jaccard_index(predicted, truth, 5, average="none", ignore_index=IGNORE)
    f1 = multiclass_f1_score(predicted, truth, 5, average="none", ignore_index=IGNORE)
    assert scores.iou == pytest.approx(iou.tolist(), abs=1e-6)
    assert scores.f1 == pytest.approx(f1.tolist(), abs=1e-6)


def test_chunks_do_not_change_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(-1, 4, (2, 1000))
    whole = confusion(predicted, truth, 4)
    monkeypatch.setattr(metrics, "_CHUNK", 37)
    assert (confusion(predicted, truth, 4) == whole).all()


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.uint8, np.uint16])
def test_arrays_and_tensors_of_every_kind_count_alike(kind: type) -> None:
    predicted, truth = np.array([0, 1, 2, 2], kind), np.array([0, 1, 1, 2], kind)
    predicted.flags.writeable = False
    found = confusion(predicted, truth, 3)
    assert (confusion(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 2]), 3) == found).all()
    assert found.tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]]


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        (labels(0, 3), labels(0, 1), r"predicted must lie in \[-1, 3\), found 0 to 3"),
        (labels(0, 1), labels(0, -2), r"truth must lie in"),
        (labels(0), labels(0, 1), r"alike"),
        (np.zeros(2), labels(0, 1), r"integers"),
        (torch.zeros(2), labels(0, 1), r"integers"),
    ],
)
def test_bad_labels_are_refused(predicted: np.ndarray, truth: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusion(predicted, truth, 3)


def test_a_confusion_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="3 classes need"):
        Scores.from_confusion(np.zeros((2, 2), int), NAMES)
    with pytest.raises(ValueError, match="counts"):
        Scores.from_confusion(np.full((3, 3), -1), NAMES)


def test_the_table_has_a_row_per_class_whatever_the_name() -> None:
    scores = Scores.from_confusion(np.array([[1, 0], [0, 1]]), ("a|b", "c"))
    table = scores.to_markdown().splitlines()
    assert table[2] == "| a\\|b | 100.0 % | 100.0 % | 100.0 % | 100.0 % | 1 |"
    assert table[-1] == "mIoU 100.0 %, overall accuracy 100.0 %, 2 points scored."


def test_scores_alone_do_not_load_torch() -> None:
    program = "import sys, models.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
