"""What the page says in words: key figures as tiles, and plainly what is not scored or not there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.metrics import Scores
from pointcloud.labels import IGNORE
from tasks.report.content import Report, ScanView


@dataclass(frozen=True)
class Tile:
    """A key figure: what it is, its value, and a few words beneath."""

    label: str
    value: str
    note: str


def grouped(number: int) -> str:
    """The number with narrow no-break spaces between the thousands, as SI writes it."""
    return f"{number:,}".replace(",", "\u202f")


def per_cent(share: float | None) -> str:
    """One decimal, or a dash where the share is undefined. Never rounds up to 100 or down to 0."""
    if share is None:
        return "–"
    percent = 100 * share
    if 0 < percent < 0.05:
        return "<\u202f0.1\u202f%"
    if 99.95 <= percent < 100:
        return ">\u202f99.9\u202f%"
    return f"{percent:.1f}\u202f%"


def counted(number: int, one: str, many: str) -> str:
    """ "1 scan", "2 scans"."""
    return f"{grouped(number)} {one if number == 1 else many}"


def tiles(report: Report, scores: Scores | None) -> list[Tile]:
    """The headline: the scores, if any, then what was labelled."""
    found = []
    if scores is not None:
        present = [(v, n) for v, n in zip(scores.iou, scores.names, strict=True) if v is not None]
        absent = f", {len(scores.absent)} absent" if scores.absent else ""
        found.append(
            Tile(
                "mIoU", per_cent(scores.miou), f"mean of {counted(len(present), 'class', 'classes')}{absent}"
            )
        )
        accuracy = per_cent(scores.overall_accuracy)
        found.append(Tile("Overall accuracy", accuracy, f"of {grouped(scores.num_scored)} scored points"))
        if len(present) > 1:
            value, name = min(present)
            found.append(Tile("Weakest class", per_cent(value), f"IoU of {name}"))
    num_points = sum(map(len, report.scans))
    if num_points:
        where = f"in {counted(len(report.scans), 'scan', 'scans')} on this page"
        found.append(Tile("Points", grouped(num_points), where))
        found.append(_news(report))
        sure = [scan.confidence for scan in report.scans if scan.confidence is not None]
        known = np.concatenate([c[~np.isnan(c)] for c in sure]) if sure else np.empty(0)
        if len(known):
            found.append(Tile("Mean confidence", per_cent(float(known.mean())), "of the labels given"))
    return found


def _news(report: Report) -> Tile:
    """What the labelling changed; a point delivered without a class is newly labelled, not changed."""
    delivered = [scan.before != IGNORE for scan in report.scans]
    had_class = sum(int(np.count_nonzero(d)) for d in delivered)
    if had_class:
        pairs = zip(report.scans, delivered, strict=True)
        changed = sum(int(np.count_nonzero(d & (scan.after != scan.before))) for scan, d in pairs)
        note = f"of {grouped(had_class)} points delivered with a class"
        return Tile("Labels changed", per_cent(changed / had_class), note)
    labelled = sum(int(np.count_nonzero(scan.after != IGNORE)) for scan in report.scans)
    share = labelled / sum(map(len, report.scans))
    return Tile("Newly labelled", per_cent(share), "delivered without a class")


def caveats(report: Report, scores: Scores | None) -> list[str]:
    """One sentence for everything a reader could otherwise take for scored, present or labelled."""
    said = []
    if scores is None:
        said.append("Nothing was scored: no confusion was given, so the page shows no IoU and no accuracy.")
    else:
        if scores.absent:
            said.append(
                "Left out of the mIoU, for no scored point has or was given the class: "
                f"{', '.join(scores.absent)}."
            )
        invented = [
            name
            for name, support, given in zip(scores.names, scores.support, scores.predicted, strict=True)
            if given and not support
        ]
        if invented:
            said.append(f"Given but never true, so counted with an IoU of 0: {', '.join(invented)}.")
        if scores.num_other:
            points = counted(scores.num_other, "scored point was", "scored points were")
            said.append(f"{points} given no class of the scheme; they count as errors (column “other”).")
    said += [sentence for scan in report.scans for sentence in _caveats_of(scan)]
    return said


def _caveats_of(scan: ScanView) -> list[str]:
    said = []
    if not len(scan):
        return [f"Scan {scan.name} has no points, so there is nothing to show of it."]
    if scan.truth is None:
        said.append(f"Scan {scan.name} has no truth and is not scored.")
    elif unscored := int(np.count_nonzero(scan.truth == IGNORE)):
        of_all = f"{grouped(unscored)} of {counted(len(scan), 'point', 'points')}"
        said.append(
            f"Scan {scan.name}: {of_all} ({per_cent(unscored / len(scan))}) have no class of the scheme as "
            "truth and are not scored."
        )
    if silent := int(np.count_nonzero(scan.after == IGNORE)):
        said.append(
            f"Scan {scan.name}: {counted(silent, 'point was', 'points were')} given no class of the scheme."
        )
    if scan.confidence is None:
        said.append(f"Scan {scan.name} comes without confidence.")
    return said
