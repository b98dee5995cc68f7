"""Scores of a labelling: one confusion summed over the whole set, and what follows from it.

The confusion has one row per true class and one column per predicted class, then a last column *other*:
points of a class that were given no class of the scheme. A labelled cloud may hold such codes, and dropping
them would reward a predictor for not answering. They are false negatives of the true class, false positives
of none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pointcloud import markdown
from pointcloud.labels import IGNORE

if TYPE_CHECKING:
    import torch

# Points counted at a time: torchmetrics widens to int64, so this bounds the extra memory to some 100 MB.
_CHUNK = 1 << 22


def confusion(
    predicted: np.ndarray | torch.Tensor, truth: np.ndarray | torch.Tensor, num_classes: int
) -> np.ndarray:
    """Counts of (true class, predicted class), to be summed over scans.

    Args:
        predicted: (P,) integer class indices in [0, num_classes), or `IGNORE` for a label outside the scheme.
        truth: (P,) integer class indices in [0, num_classes), or `IGNORE` for a point that is not scored.
        num_classes: C, at least 1.

    Returns:
        (C, C + 1) int64; rows truth, columns predicted, the last column *other* (`IGNORE` predicted where the
        truth is a class). The sum is the number of scored points.

    Raises:
        ValueError: shapes that are not (P,) and equal, values that are not integers, an index out of range.
    """
    # Imported here: the report reads `Scores` and does not need torch.
    import torch
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected at least 1.")
    if predicted.ndim != 1 or predicted.shape != truth.shape:
        raise ValueError(
            f"predicted {tuple(predicted.shape)} and truth {tuple(truth.shape)} must be (P,) alike."
        )
    for what, values in (("predicted", predicted), ("truth", truth)):
        is_integer = (
            np.issubdtype(values.dtype, np.integer)
            if isinstance(values, np.ndarray)
            else not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
        )
        if not is_integer:
            raise ValueError(f"{what} must hold integers, found {values.dtype}.")
        if len(values) and not (int(values.min()) >= IGNORE and int(values.max()) < num_classes):
            raise ValueError(
                f"{what} must lie in [{IGNORE}, {num_classes}), "
                f"found {int(values.min())} to {int(values.max())}."
            )
    counts = torch.zeros((num_classes + 1, num_classes + 1), dtype=torch.int64)
    for start in range(0, len(truth), _CHUNK):
        answers = _int64(predicted[start : start + _CHUNK])
        targets = _int64(truth[start : start + _CHUNK]).to(answers.device)
        answers = torch.where(answers == IGNORE, num_classes, answers)
        counts += multiclass_confusion_matrix(
            answers, targets, num_classes + 1, ignore_index=IGNORE, validate_args=False
        ).cpu()
    return counts[:num_classes].numpy()


def _int64(values: np.ndarray | torch.Tensor) -> torch.Tensor:
    import torch

    # A copy in any case: torch warns of arrays it may not write to, and cannot take every unsigned kind.
    return torch.from_numpy(values.astype(np.int64)) if isinstance(values, np.ndarray) else values.long()


@dataclass(frozen=True)
class Scores:
    """What a confusion says. Tuples hold one value per class, shares in [0, 1]; None where undefined (0 / 0).

    A class that is neither true nor predicted anywhere is absent: its IoU is None, it takes no part in
    `miou`, and `absent` names it. A class that is predicted but never true has IoU 0 and counts: leaving it
    out would hide the mistake. This is the rule of torchmetrics too.
    """

    names: tuple[str, ...]
    iou: tuple[float | None, ...]
    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]
    f1: tuple[float | None, ...]
    support: tuple[int, ...]  # true points
    predicted: tuple[int, ...]  # points given the class, among the scored ones
    miou: float | None  # over the classes that are not absent
    overall_accuracy: float | None
    num_scored: int
    num_other: int  # scored points given no class of the scheme; all of them errors

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes left out of `miou`."""
        return tuple(name for name, value in zip(self.names, self.iou, strict=True) if value is None)

    @staticmethod
    def from_confusion(confusion: np.ndarray, names: Sequence[str]) -> Scores:
        """Scores of a (C, C + 1) confusion as `confusion` counts it, or a (C, C) one with no *other* column.

        Raises:
            ValueError: a shape that does not fit the C names, or counts that are negative or not integers.
        """
        num_classes = len(names)
        if confusion.shape not in ((num_classes, num_classes), (num_classes, num_classes + 1)):
            raise ValueError(
                f"confusion has shape {confusion.shape}; {num_classes} classes need "
                f"({num_classes}, {num_classes + 1}) or ({num_classes}, {num_classes})."
            )
        if not np.issubdtype(confusion.dtype, np.integer) or (confusion < 0).any():
            raise ValueError(f"confusion must hold counts, found {confusion.dtype} or a negative value.")
        counts = confusion.astype(np.int64)
        right = np.diagonal(counts)
        support = counts.sum(axis=1)
        predicted = counts[:, :num_classes].sum(axis=0)
        iou = _shares(right, support + predicted - right)
        present = [value for value in iou if value is not None]
        return Scores(
            names=tuple(names),
            iou=iou,
            precision=_shares(right, predicted),
            recall=_shares(right, support),
            f1=_shares(2 * right, support + predicted),
            support=tuple(support.tolist()),
            predicted=tuple(predicted.tolist()),
            miou=sum(present) / len(present) if present else None,
            overall_accuracy=_shares(right.sum(keepdims=True), support.sum(keepdims=True))[0],
            num_scored=int(support.sum()),
            num_other=int(counts[:, num_classes:].sum()),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able record: `classes` has one entry per class, the rest are figures of the whole set."""
        record = asdict(self)
        columns = ("iou", "precision", "recall", "f1", "support", "predicted")
        values = [record.pop(column) for column in ("names", *columns)]
        classes = [dict(zip(("name", *columns), row, strict=True)) for row in zip(*values, strict=True)]
        return record | {"absent": list(self.absent), "classes": classes}

    def to_markdown(self) -> str:
        """Table of the classes, then one line with the figures of the whole set. Shares in per cent."""
        rows = zip(self.names, self.iou, self.precision, self.recall, self.f1, self.support, strict=True)
        lines = markdown.table(
            ["class", "IoU", "precision", "recall", "F1", "points"],
            [(name, *map(_per_cent, shares), f"{support:,}") for name, *shares, support in rows],
            align="lr",
        )
        summary = (
            f"mIoU {_per_cent(self.miou)}, overall accuracy {_per_cent(self.overall_accuracy)}, "
            f"{self.num_scored:,} points scored"
        )
        if self.num_other:
            summary += f", {self.num_other:,} of them given no class of the scheme"
        if self.absent:
            summary += f"; left out, for no point has or was given the class: {', '.join(self.absent)}"
        return "\n".join([*lines, "", f"{summary}."])


def _shares(part: np.ndarray, whole: np.ndarray) -> tuple[float | None, ...]:
    # As Python integers: exact up to the one division, and no warning for 0 / 0.
    return tuple(p / w if w else None for p, w in zip(part.tolist(), whole.tolist(), strict=True))


def _per_cent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
