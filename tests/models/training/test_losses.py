"""The losses against plain implementations of their papers' formulas, and against finite differences."""

from __future__ import annotations

from itertools import combinations
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.recipes import Loss, TrainConfig
from models.training.losses import focal_loss, loss_of, lovasz_softmax_loss, point_weight, sets_of
from pointcloud.labels import FIRST_SET, IGNORE, PRESETS, LabelScheme, PartialLabel


def points(num_points: int = 9, num_classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits in float64 and labels, some ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn((num_points, num_classes), generator=generator, dtype=torch.float64)
    labels = torch.randint(num_classes, (num_points,), generator=generator)
    labels[::4] = IGNORE
    return logits, labels


WEIGHTS = torch.tensor([0.5, 2.0, 1.5], dtype=torch.float64)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighed"])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_by_hand(gamma: float, weights: Tensor | None) -> None:
    logits, labels = points()
    summed, divisor = 0.0, 0.0
    for row, label in zip(logits.numpy(), labels.tolist(), strict=True):
        if label != IGNORE:
            p = np.exp(row[label]) / np.exp(row).sum()
            alpha = 1.0 if weights is None else float(weights[label])
            summed += -alpha * (1 - p) ** gamma * np.log(p)
            divisor += alpha
    assert focal_loss(logits, labels, gamma, weights).item() == pytest.approx(summed / divisor, rel=1e-12)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighed"])
def test_focal_loss_without_gamma_is_the_cross_entropy(weights: Tensor | None) -> None:
    logits, labels = points()
    expected = F.cross_entropy(logits, labels, weight=weights, ignore_index=IGNORE)
    assert focal_loss(logits, labels, 0.0, weights).item() == pytest.approx(expected.item(), rel=1e-12)


def jaccard_loss(mistaken: frozenset[int], truth: np.ndarray) -> float:
    """1 - IoU of a class when exactly the points `mistaken` are labelled wrongly (Berman et al., equation 6)."""
    union = set(np.flatnonzero(truth)) | mistaken
    return len(mistaken) / len(union) if union else 0.0


def lovasz_extension(errors: np.ndarray, truth: np.ndarray) -> float:
    """Of `jaccard_loss` at `errors`, by its definition: the steps of a growing set, largest error first."""
    order, before, value, taken = np.argsort(-errors), 0.0, 0.0, set[int]()
    for index in order.tolist():
        taken.add(index)
        now = jaccard_loss(frozenset(taken), truth)
        value += errors[index] * (now - before)
        before = now
    return value


@pytest.mark.parametrize("seed", range(4))
def test_lovasz_softmax_loss_by_its_definition(seed: int) -> None:
    logits, labels = points(12, seed=seed)
    keep = labels != IGNORE
    probability, known = logits[keep].softmax(dim=1).numpy(), labels[keep].numpy()
    expected = [
        lovasz_extension(np.abs((known == c) - probability[:, c]), known == c) for c in np.unique(known)
    ]
    assert lovasz_softmax_loss(logits, labels).item() == pytest.approx(np.mean(expected), rel=1e-12)


def test_lovasz_softmax_loss_of_hard_answers_is_one_minus_the_iou() -> None:
    truth = torch.tensor([0, 0, 0, 1])
    for wrong in (set(c) for size in range(4) for c in combinations(range(3), size)):
        answer = torch.tensor([1 - t if i in wrong else t for i, t in enumerate(truth.tolist())])
        logits = 200.0 * F.one_hot(answer, 2).double()
        iou = [((answer == c) & (truth == c)).sum() / ((answer == c) | (truth == c)).sum() for c in (0, 1)]
        expected = 1 - torch.stack(iou).double().mean().item()
        assert lovasz_softmax_loss(logits, truth).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "lovasz"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighed"])
def test_gradients_by_finite_differences(loss: str, weights: Tensor | None) -> None:
    logits, labels = points()
    config = TrainConfig(loss=loss)
    assert torch.autograd.gradcheck(
        lambda x: loss_of(x, labels, config, weights), (logits.requires_grad_(),), raise_exception=True
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_point_that_is_quite_sure_has_a_finite_focal_gradient(gamma: float) -> None:
    logits = torch.tensor([[80.0, -80.0], [-80.0, 80.0]], requires_grad=True)
    focal_loss(logits, torch.tensor([0, 0]), gamma).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighed"])
def test_parts_weighed_by_their_points_make_the_whole(loss: str, weights: Tensor | None) -> None:
    logits, labels = points(20)
    config = TrainConfig(loss=loss)
    whole = loss_of(logits, labels, config, weights)
    parts = [(logits[:7], labels[:7]), (logits[7:], labels[7:])]
    summed = sum(loss_of(x, y, config, weights) * point_weight(y, weights) for x, y in parts)
    assert (summed / point_weight(labels, weights)).item() == pytest.approx(whole.item(), rel=1e-12)


SETS = torch.tensor([[True, False, False], [False, True, False], [False, False, True], [True, False, True]])
"""The first three hold one class each."""


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighed"])
@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_sets_of_one_class_give_the_loss_and_the_gradient_of_that_class(
    loss: Loss, weights: Tensor | None
) -> None:
    logits, labels = points()
    config = TrainConfig(loss=loss)
    # Every second labelled point says its class as a set.
    as_sets = torch.where((torch.arange(len(labels)) % 2 == 0) & (labels >= 0), FIRST_SET - labels, labels)

    gradients, values = [], []
    for given in (labels, as_sets):
        x = logits.clone().requires_grad_()
        value = loss_of(x, given, config, weights, SETS)
        (gradient,) = torch.autograd.grad(value, x)
        gradients.append(gradient)
        values.append(value.item())

    assert values[1] == pytest.approx(values[0], rel=1e-7)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-6, atol=1e-9)
    assert point_weight(as_sets, weights, SETS).item() == pytest.approx(point_weight(labels, weights).item())


def test_the_loss_of_a_set_is_that_of_its_probability() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([FIRST_SET - 3, IGNORE])

    value = loss_of(logits, labels, TrainConfig(label_smoothing=0.0), None, SETS)

    p = np.exp([2.0, 0.0, 1.0]) / np.exp([2.0, 0.0, 1.0]).sum()
    assert value.item() == pytest.approx(-np.log(p[0] + p[2]), rel=1e-6)


def test_a_set_of_all_classes_teaches_nothing() -> None:
    logits, _ = points()
    logits.requires_grad_()
    labels = torch.full((len(logits),), FIRST_SET)

    value = loss_of(
        logits, labels, TrainConfig(label_smoothing=0.0), None, torch.ones((1, 3), dtype=torch.bool)
    )

    (gradient,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(gradient, torch.zeros_like(logits), rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", get_args(Loss))
def test_a_batch_of_sets_alone_has_a_finite_loss(loss: Loss) -> None:
    logits, _ = points()

    value = loss_of(logits, torch.full((len(logits),), FIRST_SET - 3), TrainConfig(loss=loss), WEIGHTS, SETS)

    assert torch.isfinite(value)


def test_a_set_weighs_as_its_classes_that_have_points() -> None:
    weights = torch.tensor([0.0, 3.0, 5.0])

    assert point_weight(torch.tensor([FIRST_SET - 3]), weights, SETS).item() == 5.0
    assert point_weight(torch.tensor([FIRST_SET]), weights, SETS).item() == 1.0


def test_sets_of_a_scheme() -> None:
    assert sets_of(PRESETS["asprs"]) is None
    scheme = LabelScheme(
        "s", PRESETS["ground-vegetation-building"].classes, (PartialLabel((1,), ("vegetation", "building")),)
    )
    found = sets_of(scheme)
    assert found is not None
    assert found.tolist() == [[False, True, True]]
