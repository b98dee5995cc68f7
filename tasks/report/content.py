"""What a report is about: plain data, checked on creation."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from models.metrics import Scores
from pointcloud.labels import IGNORE, LabelScheme


@dataclass(frozen=True)
class ScanCounts:
    """How many points of a scan are what; to be added up over its chunks.

    Attributes:
        num_points: all of them.
        num_unscored: whose truth is no class of the scheme; 0 where there is no truth.
        num_silent: given no class of the scheme.
        num_classified: delivered with a class; num_changed: of these, given another one or none.
        num_sure: with a confidence; confidence: the sum of it.
    """

    num_points: int = 0
    num_unscored: int = 0
    num_silent: int = 0
    num_classified: int = 0
    num_changed: int = 0
    num_sure: int = 0
    confidence: float = 0.0

    @staticmethod
    def of(
        before: np.ndarray, after: np.ndarray, truth: np.ndarray | None, confidence: np.ndarray | None
    ) -> ScanCounts:
        """Of some points, the arrays as in `ScanView`."""
        classified = before != IGNORE
        sure = np.empty(0) if confidence is None else confidence[~np.isnan(confidence)]
        return ScanCounts(
            num_points=len(after),
            num_unscored=0 if truth is None else int(np.count_nonzero(truth == IGNORE)),
            num_silent=int(np.count_nonzero(after == IGNORE)),
            num_classified=int(np.count_nonzero(classified)),
            num_changed=int(np.count_nonzero(classified & (after != before))),
            num_sure=len(sure),
            confidence=float(sure.sum(dtype=np.float64)),
        )

    def __add__(self, other: ScanCounts) -> ScanCounts:
        return ScanCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class ScanView:
    """One scan on the page, P points: all of its points, or a sample of them that pictures are made from.

    Attributes:
        name: shown as text, whatever it holds.
        xyz: (P, 3) float64, CRS units.
        before: (P,) class indices as delivered, `IGNORE` where unclassified or outside the scheme.
        after: (P,) class indices predicted, `IGNORE` where none was given.
        truth: (P,) class indices, `IGNORE` where not scored; None when the scan has no truth.
        confidence: (P,) float in [0, 1], NaN where there is none; None when the predictor gives none.
        whole: what was counted of all points of the scan; None where they are all here.

    Raises:
        ValueError: an array of another shape or kind, a coordinate that is not finite, a confidence outside
            [0, 1].
    """

    name: str
    xyz: np.ndarray
    before: np.ndarray
    after: np.ndarray
    truth: np.ndarray | None = None
    confidence: np.ndarray | None = None
    whole: ScanCounts | None = None

    def __post_init__(self) -> None:
        if self.xyz.ndim != 2 or self.xyz.shape[1] != 3 or self.xyz.dtype != np.float64:
            raise ValueError(f"xyz must be (P, 3) float64, found {self.xyz.shape} {self.xyz.dtype}.")
        if not np.isfinite(self.xyz).all():
            raise ValueError("xyz holds NaN or infinite coordinates.")
        for what, labels in self.labellings().items():
            if labels.shape != (len(self),) or not np.issubdtype(labels.dtype, np.signedinteger):
                raise ValueError(
                    f"{what} must be ({len(self)},) signed integers, found {labels.shape} {labels.dtype}."
                )
        if self.confidence is not None:
            if self.confidence.shape != (len(self),) or not np.issubdtype(self.confidence.dtype, np.floating):
                raise ValueError(f"confidence must be ({len(self)},) float, found {self.confidence.shape}.")
            if ((self.confidence < 0) | (self.confidence > 1)).any():
                raise ValueError("confidence must lie in [0, 1].")

    def __len__(self) -> int:
        return len(self.xyz)

    def counts(self) -> ScanCounts:
        """Of all points of the scan, also where a sample of them is here."""
        if self.whole is not None:
            return self.whole
        return ScanCounts.of(self.before, self.after, self.truth, self.confidence)

    def labellings(self) -> dict[str, np.ndarray]:
        """The (P,) class indices the scan has: `before`, `after` and, where there is one, `truth`."""
        found = {"before": self.before, "after": self.after}
        return found if self.truth is None else {**found, "truth": self.truth}


@dataclass(frozen=True)
class Table:
    """A table of words: heads, and rows of as many cells, the first of each naming it."""

    title: str
    note: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Report:
    """All of one page.

    Attributes:
        title: the headline.
        subtitle: where the data come from, for instance "real LiDAR: …" or "SIMULATED survey".
        scheme: the classes (C of them) the indices of every scan refer to.
        scans: the scans shown; they share one budget of points, so a handful is better than a hundred.
        confusion: (C, C + 1) or (C, C) counts as in `models.metrics`, over the whole set that was scored,
            which may be larger than the scans shown; None when nothing was scored.
        tables: shown below the confusion.
        history: one record per epoch: epoch, train_loss, val_miou, and where known val_loss, learning_rate,
            seconds. A value may be missing or None.
        facts: key figures in their order: points, seconds per stage, checkpoint, commands, CRS …
        unit: of the coordinates, for axis titles.
        lifted: names of classes left out of the maps from above, by truth where there is one, else by label:
            a room is seen with its ceiling off.

    Raises:
        ValueError: a class index outside [IGNORE, C), a confusion that does not fit the scheme, a
            lifted class the scheme does not have.
    """

    title: str
    subtitle: str
    scheme: LabelScheme
    scans: tuple[ScanView, ...] = ()
    confusion: np.ndarray | None = None
    tables: tuple[Table, ...] = ()
    history: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    unit: str = "CRS units"
    lifted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for scan in self.scans:
            for what, labels in scan.labellings().items():
                if len(labels) and not (labels.min() >= IGNORE and labels.max() < len(self.scheme)):
                    raise ValueError(
                        f"{what} of scan {scan.name!r} must lie in [{IGNORE}, {len(self.scheme)}), "
                        f"found {labels.min()} to {labels.max()}."
                    )
        if strange := set(self.lifted) - set(self.scheme.names):
            raise ValueError(f"lifted names {sorted(strange)}, not classes of {self.scheme.name!r}.")
        self.scores()

    def scores(self) -> Scores | None:
        """Scores of the confusion, or None when nothing was scored."""
        return None if self.confusion is None else Scores.from_confusion(self.confusion, self.scheme.names)
