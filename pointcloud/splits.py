"""Train and validation by area, never by random points: neighbours of training points test nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from pointcloud.blocks import Block
from pointcloud.errors import PointloomError
from pointcloud.labels import IGNORE

TRAIN, VAL, UNUSED = "train", "val", "unused"


@dataclass(frozen=True)
class SplitRule:
    """Which blocks validate.

    Attributes:
        val_fraction: of each scan, the strip along one of its four sides that comes nearest to holding this
            share of every class. Blocks of shifted grids that lie across its edge are left unused.
        val_scans: glob patterns; a scan whose name matches is validation as a whole. When any is given, no
            strip is cut.
    """

    val_fraction: float = 0.2
    val_scans: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise PointloomError(f"val_fraction must be at least 0 and below 1, found {self.val_fraction}.")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def assign(scan: str, blocks: list[Block], rule: SplitRule) -> list[str]:
    """The split of each block of one scan. A scan of one tile, which no strip can part, is training."""
    if rule.val_scans:
        chosen = any(fnmatchcase(scan, pattern) for pattern in rule.val_scans)
        return [(VAL if b.shift == (0, 0) else UNUSED) if chosen else TRAIN for b in blocks]
    base = [b for b in blocks if b.shift == (0, 0)]
    cells = np.array([b.cell for b in blocks])
    strips = _strips(np.array([b.cell for b in base])) if rule.val_fraction and base else []
    if not strips:
        return [TRAIN] * len(blocks)
    shares = _shares(base)
    strip, _ = min(strips, key=lambda found: np.abs(shares[found[1]].sum(axis=0) - rule.val_fraction).mean())
    held, missed = strip.holds(cells), strip.misses(cells)
    return [
        TRAIN if outside else VAL if inside and b.shift == (0, 0) else UNUSED
        for b, inside, outside in zip(blocks, held, missed, strict=True)
    ]


@dataclass(frozen=True)
class _Strip:
    """The ground on one side of a tile edge: from `edge` upwards along x (0) or y (1), or below it."""

    axis: int
    edge: float
    upwards: bool

    def holds(self, cells: np.ndarray) -> np.ndarray:
        """(B,) bool: cells (B, 4) that lie in the strip as a whole."""
        low, high = cells[:, self.axis], cells[:, self.axis + 2]
        return low >= self.edge - self._slack if self.upwards else high <= self.edge + self._slack

    def misses(self, cells: np.ndarray) -> np.ndarray:
        """(B,) bool: cells (B, 4) that have no ground in common with the strip."""
        return _Strip(self.axis, self.edge, not self.upwards).holds(cells)

    @property
    def _slack(self) -> float:
        # Cells that share an edge compute it from either side; rounding must not part them.
        return abs(self.edge) * 1e-12


def _strips(cells: np.ndarray) -> list[tuple[_Strip, np.ndarray]]:
    """Every strip that parts cells (B, 4) without cutting one, and which of them it holds (B,)."""
    edges = [np.unique(cells[:, axis])[1:].tolist() for axis in (0, 1)]
    strips = [_Strip(axis, edge, up) for axis in (0, 1) for edge in edges[axis] for up in (True, False)]
    found = [(strip, strip.holds(cells)) for strip in strips]
    # The quarters of a dense tile have edges within the tiles beside it.
    return [(strip, held) for strip, held in found if (held | strip.misses(cells)).all()]


def _shares(base: list[Block]) -> np.ndarray:
    """(B, C) of each class, the share of its labelled core points that lies in each block."""
    # A scan without labels is split by its points alone, as one class.
    labels = [
        np.zeros(int(b.is_core.sum()), np.int8)
        if b.label is None
        else b.label[b.is_core & (b.label != IGNORE)]
        for b in base
    ]
    num_classes = max((int(label.max(initial=0)) for label in labels), default=0) + 1
    counts = np.stack([np.bincount(label, minlength=num_classes) for label in labels])
    total = counts.sum(axis=0)
    # With no label at all every strip is as good as another.
    return counts[:, total > 0] / total[total > 0] if total.any() else np.zeros((len(base), 1))
