"""Losses of point labels: cross-entropy, focal, Lovász-Softmax, written from their papers.

P points, C classes; points whose label is IGNORE take no part.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.recipes import TrainConfig
from pointcloud.errors import PointloomError
from pointcloud.labels import IGNORE


def loss_of(logits: Tensor, labels: Tensor, config: TrainConfig, weights: Tensor | None) -> Tensor:
    """The recipe's loss, a mean over the labelled points in which each counts as its class weighs.

    Args:
        logits: (P, C). labels: (P,) class index or IGNORE. weights: (C,) of the classes, None for equal ones.
    """
    if config.loss == "focal":
        return focal_loss(logits, labels, config.focal_gamma, weights)
    loss = F.cross_entropy(
        logits, labels, weight=weights, ignore_index=IGNORE, label_smoothing=config.label_smoothing
    )
    return loss + lovasz_softmax_loss(logits, labels) if config.loss == "lovasz" else loss


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


def point_weight(labels: Tensor, weights: Tensor | None) -> Tensor:
    """What the mean of `loss_of` divides by: the labelled points, each counted as its class weighs."""
    labelled = labels[labels != IGNORE]
    return (labelled.new_ones(len(labelled)) if weights is None else weights[labelled]).sum().double()


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
