"""Training, validation and test by area, never by random points, whose neighbours would be training points.

Ground is parted in whole tiles of the base grid. A tile of a shifted grid trains where it covers training
ground alone, and is left unused elsewhere, so no point is the core of both a training and a held-out block.
What remains is the halo: a training block beside held-out ground sees the points up to `halo_m` inside it, as
context, with their coordinates and attributes; their labels are never used, since only a core has a loss.
Strips are cut scan by scan: where scans overlap, the same ground may train from one and validate from the other.
Squares of ground (`area_size_m`) or named scans do not have this defect.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from pointcloud.errors import PointloomError

TRAIN, VAL, TEST, UNUSED = "train", "val", "test", "unused"
SPLITS = (TRAIN, VAL, TEST)


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """Which ground is held out, for validation while training and for the test afterwards.

    Scans named by `test_scans` and `val_scans` are held out as a whole; the test comes first where both match.
    When `val_scans` are given, all other scans train. Else each of them is parted: into squares of
    `area_size_m` where that is positive, and into strips where it is 0.

    Attributes:
        val_fraction, test_fraction: the shares held out. Of strips: along one of the four sides of each scan,
            the one that comes nearest to holding this share of every class. Of areas: the probability of each
            square, so the shares are near it only where there are many squares.
        val_scans, test_scans: glob patterns of scan names; ``*`` crosses folders, so ``Area_5/*`` is every room
            of S3DIS's Area 5.
        area_size_m: edge of the squares, metres on the CRS's grid, at least one tile. Each is given to a split by
            its place and the seed alone: it makes no difference how the survey is cut into files, and tiles that
            come later change nothing.
        num_folds, fold: cross-validation by squares: those of the k-th of num_folds equal parts test, in place of
            `test_fraction`. 0 folds: none.
        seed: another one gives other squares.

    Raises:
        PointloomError: shares or folds that cannot be.
    """

    val_fraction: float = 0.2
    val_scans: tuple[str, ...] = ()
    test_fraction: float = 0.0
    test_scans: tuple[str, ...] = ()
    area_size_m: float = 0.0
    num_folds: int = 0
    fold: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("val_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise PointloomError(f"{name} must be at least 0 and below 1, found {getattr(self, name)}.")
        held = self.val_fraction + (1 / self.num_folds if self.num_folds > 0 else self.test_fraction)
        if held >= 1:
            raise PointloomError(
                f"validation and test hold out {held:.0%}, expected less than all; lower a share."
            )
        if not 0 <= self.area_size_m < math.inf:
            raise PointloomError(f"area_size_m must be 0 (strips) or positive, found {self.area_size_m}.")
        if self.num_folds and not (self.num_folds >= 2 and 0 <= self.fold < self.num_folds):
            raise PointloomError(
                f"fold {self.fold} of {self.num_folds} cannot be; give two folds or more and count them from 0."
            )
        if self.num_folds and (not self.area_size_m or self.test_fraction):
            raise PointloomError("num_folds parts squares of ground: set area_size_m, and no test_fraction.")

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold."""
        return asdict(self)


def plan_split(
    scan: str, tiles: np.ndarray, class_counts: np.ndarray, rule: SplitRule, tile_size_m: float
) -> list[str]:
    """The split of every tile of one scan, from what a first pass over it counts.

    Args:
        scan: name of the scan.
        tiles: (T, 2) int, (i, j) of the base grid, each once; any order. Tile i begins i * tile_size_m metres
            from the CRS's zero, so its place on the ground needs nothing else.
        class_counts: (T, C) int, labelled core points by class; of a scan without labels (T, 1), its points. Only
            strips look at them.
        rule: which ground is held out.
        tile_size_m: edge of a tile.

    Returns:
        T splits. A scan of one tile, which no strip can part, is training.

    Raises:
        PointloomError: areas smaller than a tile.
    """
    if _matches(scan, rule.test_scans):
        return [TEST] * len(tiles)
    if rule.val_scans:
        return [VAL if _matches(scan, rule.val_scans) else TRAIN] * len(tiles)
    if rule.area_size_m:
        if not rule.area_size_m >= tile_size_m:
            raise PointloomError(
                f"area_size_m = {rule.area_size_m:g} is less than a tile of {tile_size_m:g} m; make it several tiles."
            )
        # A tile belongs to the square that its centre lies in.
        areas = np.floor((np.asarray(tiles) + 0.5) * (tile_size_m / rule.area_size_m)).astype(np.int64)
        of_area = {(i, j): _split_of_area(i, j, rule) for i, j in np.unique(areas, axis=0).tolist()}
        return [of_area[i, j] for i, j in areas.tolist()]
    return _by_strips(np.asarray(tiles), np.asarray(class_counts, dtype=np.int64), rule)


def split_of_shifted(
    tile: tuple[int, int], shift: tuple[int, int], splits: Mapping[tuple[int, int], str]
) -> str:
    """The split of a tile of a shifted grid, given those of the base grid by (i, j): training or unused."""
    below = [
        splits.get((tile[0] + di, tile[1] + dj), TRAIN)  # ground without points holds nothing out
        for di in range(1 + (shift[0] > 0))
        for dj in range(1 + (shift[1] > 0))
    ]
    return TRAIN if set(below) == {TRAIN} else UNUSED


def is_mixed(scans: Iterable[str], rule: SplitRule) -> bool:
    """Whether scans that share a tile are named for different splits, so that it can serve neither."""
    if not (rule.val_scans or rule.test_scans):
        return False
    whole = SplitRule(
        val_fraction=0.0, val_scans=rule.val_scans, test_fraction=0.0, test_scans=rule.test_scans
    )
    one = np.zeros((1, 2), np.int64), np.ones((1, 1), np.int64)
    return len({plan_split(scan, *one, whole, math.inf)[0] for scan in scans}) > 1


def _matches(scan: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(scan, pattern) for pattern in patterns)


def _split_of_area(i: int, j: int, rule: SplitRule) -> str:
    # Two draws, so that the squares that validate do not move when the test takes others.
    tested, validated = (_draw(rule.seed, purpose, i, j) for purpose in (TEST, VAL))
    if rule.num_folds:
        is_test, share = int(tested * rule.num_folds) == rule.fold, 1 / rule.num_folds
    else:
        is_test, share = tested < rule.test_fraction, rule.test_fraction
    if is_test:
        return TEST
    return VAL if validated < rule.val_fraction / (1 - share) else TRAIN


def _draw(*parts: Any) -> float:
    """A number in [0, 1) that looks random and is the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2.0**48


def _by_strips(tiles: np.ndarray, counts: np.ndarray, rule: SplitRule) -> list[str]:
    total = counts.sum(axis=0)
    # Without any label all strips are equally good.
    counts, total = (counts[:, total > 0], total[total > 0]) if total.any() else (counts[:, :1], np.ones(1))
    splits = np.full(len(tiles), TRAIN, dtype=object)
    for split, fraction in ((TEST, rule.test_fraction), (VAL, rule.val_fraction)):
        rest = np.flatnonzero(splits == TRAIN)
        strips = _strips(tiles[rest]) if fraction else []
        if strips:
            # Whole numbers are added, so the order of the tiles does not change the result.
            shares = [counts[rest[strip]].sum(axis=0) / total for strip in strips]
            nearest = min(range(len(strips)), key=lambda n: float(np.abs(shares[n] - fraction).mean()))
            splits[rest[strips[nearest]]] = split
    return splits.tolist()


def _strips(tiles: np.ndarray) -> list[np.ndarray]:
    """(T,) bool for every edge that parts tiles (T, 2): those on its upper side, and those below it."""
    upper = [tiles[:, axis] >= edge for axis in (0, 1) for edge in np.unique(tiles[:, axis])[1:].tolist()]
    return [strip for above in upper for strip in (above, ~above)]
