"""Train and validation by area, never by random points: neighbours of a training point are no test of anything."""

from __future__ import annotations

from collections import Counter
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
        val_fraction: of each scan, the strip along one of its four sides that comes nearest to holding this share of
            every class. Blocks of shifted grids that lie across its edge are left unused.
        val_scans: glob patterns; a scan whose name matches is validation as a whole. When any is given, no strip is cut.
    """

    val_fraction: float = 0.2
    val_scans: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise PointloomError(f"val_fraction must be at least 0 and below 1, found {self.val_fraction}.")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def assign(scan: str, blocks: list[Block], rule: SplitRule) -> list[str]:
    """The split of each block of one scan. A scan of a single tile, which no strip can be cut from, is training."""
    if rule.val_scans:
        chosen = any(fnmatchcase(scan, pattern) for pattern in rule.val_scans)
        return [(VAL if b.shift == (0, 0) else UNUSED) if chosen else TRAIN for b in blocks]
    base = [b for b in blocks if b.shift == (0, 0)]
    strips = _strips(base) if rule.val_fraction else []
    if not strips:
        return [TRAIN] * len(blocks)
    strip = min(strips, key=lambda strip: _distance(base, strip, rule.val_fraction))

    def split(block: Block) -> str:
        if strip.misses(block):
            return TRAIN
        return VAL if block.shift == (0, 0) and strip.holds(block) else UNUSED

    return [split(b) for b in blocks]


@dataclass(frozen=True)
class _Strip:
    """The ground on one side of a tile edge: from `edge` upwards along x (0) or y (1), or below it."""

    axis: int
    edge: float
    upwards: bool

    def holds(self, block: Block) -> bool:
        low, high = block.cell[self.axis], block.cell[self.axis + 2]
        return low >= self.edge - self._slack if self.upwards else high <= self.edge + self._slack

    def misses(self, block: Block) -> bool:
        low, high = block.cell[self.axis], block.cell[self.axis + 2]
        return high <= self.edge + self._slack if self.upwards else low >= self.edge - self._slack

    @property
    def _slack(self) -> float:
        # Cells that share an edge compute it from either side; rounding must not part them.
        return abs(self.edge) * 1e-12


def _strips(base: list[Block]) -> list[_Strip]:
    """Everything that a tile edge parts from the rest of the scan, seen from its four sides."""
    edges = [np.unique([b.cell[axis] for b in base])[1:].tolist() for axis in (0, 1)]
    return [_Strip(axis, edge, up) for axis in (0, 1) for edge in edges[axis] for up in (True, False)]


def _distance(base: list[Block], strip: _Strip, fraction: float) -> float:
    """How far, on average over the classes, the strip's share of a class is from the wanted one."""
    inside, everywhere = Counter[int](), Counter[int]()
    for block in base:
        # A scan without labels is split by its points alone, as one class.
        label = np.zeros(len(block), np.int8) if block.label is None else block.label
        counts = Counter(label[block.is_core & (label != IGNORE)].tolist())
        everywhere += counts
        if strip.holds(block):
            inside += counts
    return sum(abs(inside[c] / n - fraction) for c, n in everywhere.items()) / max(len(everywhere), 1)
