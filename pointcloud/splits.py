"""Train and validation by area, never by random points: neighbours of a training point are no test of anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from pointcloud.blocks import Block
from pointcloud.errors import PointloomError

TRAIN, VAL, UNUSED = "train", "val", "unused"


@dataclass(frozen=True)
class SplitRule:
    """Which blocks validate.

    Attributes:
        val_fraction: of each scan, the strip at the far end of its longer axis that holds about this share of the
            points; blocks of shifted grids that lie across its edge are left unused.
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
    if rule.val_fraction == 0 or not base:
        return [TRAIN] * len(blocks)
    cells = np.array([b.cell for b in base])
    sizes = np.array([int(b.is_core.sum()) for b in base])
    extent = cells[:, 2:].max(axis=0) - cells[:, :2].min(axis=0)
    axis = int(np.argmax(extent))
    # The edge is a tile edge: the one behind which the points come nearest to the wanted share.
    edges = np.unique(cells[:, axis])[1:]
    if not len(edges):
        return [TRAIN] * len(blocks)
    beyond = np.array([sizes[cells[:, axis] >= edge].sum() for edge in edges]) / sizes.sum()
    edge = edges[np.argmin(np.abs(beyond - rule.val_fraction))]

    def split(block: Block) -> str:
        if block.cell[axis + 2] <= edge * (1 + 1e-12):
            return TRAIN
        return VAL if block.shift == (0, 0) and block.cell[axis] >= edge else UNUSED

    return [split(b) for b in blocks]
