"""The folds of a cross-validation: what each holds out, as split rules of the same blocks."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass

from pointcloud.dataset.splits import SplitRule
from pointcloud.errors import PointloomError
from pointcloud.storage import ledger


@dataclass(frozen=True)
class Fold:
    """One part of the ground that tests what the others train.

    Attributes:
        name: for people and folders.
        rule: test, validation and training of this fold.
    """

    name: str
    rule: SplitRule


def folds_of_areas(
    scans: Sequence[str], num_folds: int = 0, val_fraction: float = 0.2, seed: int = 0
) -> list[Fold]:
    """Folds of whole areas; S3DIS has six. The area of a scan is the first folder of its name, or the scan itself.

    Within a fold whole scans of the other areas validate: that many of them, drawn by their names and the seed, one
    at least.

    Args:
        scans: names.
        num_folds: areas are dealt out to as many folds in turn; 0: one fold for each area.
        val_fraction: share of the scans that do not test.
        seed: another one validates on other scans.

    Raises:
        PointloomError: more folds than areas, fewer than two, or too few scans to train and to validate on.
    """
    areas = sorted({_area(scan) for scan in scans})
    num_folds = num_folds or len(areas)
    if not 2 <= num_folds <= len(areas):
        raise PointloomError(
            f"{num_folds} fold(s) of {len(areas)} area(s) cannot be ({', '.join(areas[:6])}); give 2 or more and at "
            "most as many as there are areas, or folds of squares (by=squares)."
        )
    if not 0 < val_fraction < 1:
        raise PointloomError(
            f"val_fraction must be above 0 and below 1, found {val_fraction}: validation picks the epoch."
        )
    folds = []
    for n in range(num_folds):
        tested = areas[n::num_folds]
        rest = sorted(
            (scan for scan in scans if _area(scan) not in tested), key=lambda scan: ledger.key_of(seed, scan)
        )
        num_val = max(1, round(val_fraction * len(rest)))
        if num_val >= len(rest):
            raise PointloomError(
                f"fold {', '.join(tested)} leaves {len(rest)} scan(s) to train and to validate on, expected two or "
                "more; use more folds, or folds of squares (by=squares)."
            )
        patterns = [glob.escape(scan) for scan in scans if _area(scan) in tested]
        rule = SplitRule(
            val_fraction=0.0,
            val_scans=tuple(sorted(glob.escape(scan) for scan in rest[:num_val])),
            test_scans=tuple(sorted(patterns)),
        )
        folds.append(Fold("+".join(tested), rule))
    return folds


def folds_of_squares(
    area_size_m: float, num_folds: int = 0, val_fraction: float = 0.2, seed: int = 0
) -> list[Fold]:
    """Folds of squares of ground, however the survey is cut into files.

    Args:
        area_size_m: edge of a square.
        num_folds: 0 means 5.
        val_fraction: share of the ground that validates in each fold.
        seed: another one deals out the squares otherwise.

    Raises:
        PointloomError: a single fold, or what `SplitRule` does not take.
    """
    num_folds = num_folds or 5
    if num_folds < 2:
        raise PointloomError("one fold of squares has nothing to train on; give two folds or more.")
    return [
        Fold(
            f"fold-{n + 1}-of-{num_folds}",
            SplitRule(
                val_fraction=val_fraction, area_size_m=area_size_m, num_folds=num_folds, fold=n, seed=seed
            ),
        )
        for n in range(num_folds)
    ]


def _area(scan: str) -> str:
    return scan.split("/", 1)[0]
