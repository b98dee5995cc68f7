"""Losses of point labels: cross-entropy, focal, Lovász-Softmax, written from their papers.

P points, C classes, S sets of classes; points whose label is IGNORE take no part. A point whose label is `FIRST_SET` or
below is of one of the classes of a set: with p the probabilities of the classes, the probability that it is right is
Σ p over the set, and its loss −log Σ p. A set of one class gives that class's loss (Jin and Ghahramani, "Learning with
Multiple Labels", NIPS 2002; Cour, Sapp and Taskar, "Learning from Partial Labels", JMLR 12, 2011).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.recipes import TrainConfig
from pointcloud.errors import PointloomError
from pointcloud.labels import FIRST_SET, IGNORE, LabelScheme


def loss_of(
    logits: Tensor, labels: Tensor, config: TrainConfig, weights: Tensor | None, sets: Tensor | None = None
) -> Tensor:
    """The recipe's loss, a mean over the labelled points in which each counts as its class weighs.

    Lovász-Softmax looks at the points of one class only: of the others no error is known.

    Args:
        logits: (P, C). labels: (P,) class index, IGNORE, or of a set. weights: (C,) of the classes, None for equal
            ones; a set weighs as its classes do on average. sets: (S, C) bool, None where no label is of one.
    """
    known = labels.clamp(min=IGNORE)
    num_known, num_partial = (int(count) for count in ((labels >= 0).sum(), (labels <= FIRST_SET).sum()))
    if sets is None or not num_partial:
        loss = _loss_of_classes(logits, known, config, weights)
    else:
        weight = point_weight(labels, weights, sets)
        loss = _sum_of_sets(logits, labels, config, weights, sets) / weight
        if num_known:
            share = point_weight(known, weights) / weight
            loss = loss + share * _loss_of_classes(logits, known, config, weights)
        loss = loss.to(logits.dtype)
    return loss + lovasz_softmax_loss(logits, known) if config.loss == "lovasz" and num_known else loss


def _loss_of_classes(logits: Tensor, labels: Tensor, config: TrainConfig, weights: Tensor | None) -> Tensor:
    """The mean over the points of one class."""
    if config.loss == "focal":
        return focal_loss(logits, labels, config.focal_gamma, weights)
    return F.cross_entropy(
        logits, labels, weight=weights, ignore_index=IGNORE, label_smoothing=config.label_smoothing
    )


def _sum_of_sets(
    logits: Tensor, labels: Tensor, config: TrainConfig, weights: Tensor | None, sets: Tensor
) -> Tensor:
    """The sum over the points of a set, each weighed."""
    partial = labels <= FIRST_SET
    allowed = sets[FIRST_SET - labels[partial]]
    log_p = F.log_softmax(logits[partial], dim=1)
    log_right = log_p.masked_fill(~allowed, -torch.inf).logsumexp(dim=1)
    of_points = _weights_of(allowed, weights)
    if config.loss == "focal":
        losses = -((-torch.expm1(log_right)).clamp(min=1e-12) ** config.focal_gamma) * log_right
        return (losses * of_points).sum()
    # As torch smooths the cross-entropy of one class: a share of the loss is that of every class.
    of_classes = torch.ones_like(log_p[0]) if weights is None else weights
    smooth = -(log_p * of_classes).mean(dim=1)
    eps = config.label_smoothing
    return ((1 - eps) * -log_right * of_points + eps * smooth).sum()


def _weights_of(allowed: Tensor, weights: Tensor | None) -> Tensor:
    """(N,) what points that may be of these classes (N, C) count: the mean of those that weigh, 1 without any."""
    if weights is None:
        return allowed.new_ones(len(allowed), dtype=torch.float32)
    weighing = allowed & (weights > 0)
    number = weighing.sum(dim=1)
    return torch.where(number > 0, (weighing * weights).sum(dim=1) / number.clamp(min=1), 1.0)


def sets_of(scheme: LabelScheme) -> Tensor | None:
    """(S, C) bool, which classes are in which set of a scheme; None where it has no set."""
    if not scheme.sets:
        return None
    return torch.tensor([[index in one for index in range(len(scheme))] for one in scheme.sets])


def focal_loss(logits: Tensor, labels: Tensor, gamma: float, weights: Tensor | None = None) -> Tensor:
    """−(1 − p)^γ log p, p the probability of the true class: well-learnt points count little.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, with the softmax in place of the sigmoid.

    Args:
        logits: (P, C). labels: (P,). gamma: γ ≥ 0; 0 is the cross-entropy. weights: (C,), the paper's α.

    Returns:
        The mean over the labelled points, weighed by `weights`.
    """
    labelled = labels != IGNORE
    logits, labels = logits[labelled], labels[labelled]
    log_p = F.log_softmax(logits, dim=1).gather(1, labels[:, None])[:, 0]
    # 1 − p as −expm1(log p), and never 0: a power below 1 has no slope there.
    losses = -((-torch.expm1(log_p)).clamp(min=1e-12) ** gamma) * log_p
    if weights is None:
        return losses.mean()
    of_points = weights[labels]
    return (losses * of_points).sum() / of_points.sum()


def lovasz_softmax_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The convex surrogate of 1 − IoU, mean over the classes that have points here.

    Berman, Rannen Triki and Blaschko, "The Lovász-Softmax loss", CVPR 2018: errors m of one class, sorted from
    the largest, are weighed by how much each adds to the Jaccard loss of the set of errors before it.

    Args:
        logits: (P, C). labels: (P,), at least one of them labelled.
    """
    labelled = labels != IGNORE
    probability, labels = F.softmax(logits[labelled], dim=1), labels[labelled]
    losses = []
    for index in labels.unique():
        truth = (labels == index).to(probability.dtype)
        errors, order = (truth - probability[:, index]).abs().sort(descending=True)
        losses.append(errors @ _jaccard_steps(truth[order]))
    return torch.stack(losses).mean()


def _jaccard_steps(truth: Tensor) -> Tensor:
    """(P,) what each error adds to the Jaccard loss. truth: (P,) 1 where the class is true, largest error first."""
    intersection = truth.sum() - truth.cumsum(0)
    union = truth.sum() + (1 - truth).cumsum(0)
    jaccard = 1 - intersection / union
    return torch.diff(jaccard, prepend=jaccard.new_zeros(1))


def point_weight(labels: Tensor, weights: Tensor | None, sets: Tensor | None = None) -> Tensor:
    """What the mean of `loss_of` divides by: the labelled points, each counted as its class weighs."""
    labelled = labels[labels >= 0]
    total = (labelled.new_ones(len(labelled)) if weights is None else weights[labelled]).sum().double()
    if sets is None:
        return total
    return total + _weights_of(sets[FIRST_SET - labels[labels <= FIRST_SET]], weights).sum().double()


def class_weights(class_counts: list[int]) -> Tensor:
    """(C,) weights 1 / sqrt(share of the class), with a mean of 1 over the points; 0 for a class without any.

    Raises:
        PointloomError: fewer than two classes have points, so there is nothing to tell apart.
    """
    counts = torch.tensor(class_counts, dtype=torch.float64)
    if (counts > 0).sum() < 2:
        raise PointloomError(
            f"the training split has labelled points of {int((counts > 0).sum())} class(es), expected two or "
            "more; check the label scheme against the class codes of the scans."
        )
    weights = torch.where(counts > 0, counts.clamp(min=1).rsqrt(), 0.0)
    return (weights * counts.sum() / (weights * counts).sum()).float()
