"""The words of the page: key figures as tiles, and sentences on what is not scored or missing."""

from __future__ import annotations

from dataclasses import dataclass

from models.metrics import Scores
from tasks.report.content import Report, ScanCounts, ScanView
from tasks.report.figures import counted, grouped, per_cent


@dataclass(frozen=True)
class Tile:
    """A key figure: what it is, its value, and a few words beneath."""

    label: str
    value: str
    note: str


def tiles(report: Report, scores: Scores | None) -> list[Tile]:
    """The headline: the scores, if any, then what was labelled."""
    tiles = []
    if scores is not None:
        present = [(v, n) for v, n in zip(scores.iou, scores.names, strict=True) if v is not None]
        absent = f", {len(scores.absent)} absent" if scores.absent else ""
        tiles.append(
            Tile(
                "mIoU", per_cent(scores.miou), f"mean of {counted(len(present), 'class', 'classes')}{absent}"
            )
        )
        accuracy = per_cent(scores.overall_accuracy)
        tiles.append(Tile("Overall accuracy", accuracy, f"of {grouped(scores.num_scored)} scored points"))
        if len(present) > 1:
            value, name = min(present)
            tiles.append(Tile("Weakest class", per_cent(value), f"IoU of {name}"))
    whole = sum((scan.counts() for scan in report.scans), ScanCounts())
    if whole.num_points:
        where = f"in {counted(len(report.scans), 'scan', 'scans')} on this page"
        tiles.append(Tile("Points", grouped(whole.num_points), where))
        tiles.append(_news(whole))
        if whole.num_sure:
            mean = per_cent(whole.confidence / whole.num_sure)
            tiles.append(Tile("Mean confidence", mean, "of the labels given"))
    return tiles


def _news(whole: ScanCounts) -> Tile:
    """What the labelling changed; a point delivered without a class is newly labelled, not changed."""
    if whole.num_classified:
        note = f"of {grouped(whole.num_classified)} points delivered with a class"
        return Tile("Labels changed", per_cent(whole.num_changed / whole.num_classified), note)
    share = (whole.num_points - whole.num_silent) / whole.num_points
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
            said.append(f"Predicted but never true, so counted with an IoU of 0: {', '.join(invented)}.")
        if scores.num_other:
            points = counted(scores.num_other, "scored point was", "scored points were")
            said.append(f"{points} given no class of the scheme; they count as errors (column “other”).")
    said += [sentence for scan in report.scans for sentence in _caveats_of(scan)]
    return said


def _caveats_of(scan: ScanView) -> list[str]:
    said, counts = [], scan.counts()
    if not len(scan):
        return [f"Scan {scan.name} has no points, so there is nothing to show of it."]
    if counts.num_points > len(scan):
        said.append(
            f"Scan {scan.name}: its pictures are made from {grouped(len(scan))} of its {grouped(counts.num_points)} "
            "points, drawn at random over the whole scan, the same ones every time; scores count every point."
        )
    if scan.truth is None:
        said.append(f"Scan {scan.name} has no truth and is not scored.")
    elif counts.num_unscored:
        of_all = f"{grouped(counts.num_unscored)} of {counted(counts.num_points, 'point', 'points')}"
        said.append(
            f"Scan {scan.name}: {of_all} ({per_cent(counts.num_unscored / counts.num_points)}) have no class of the "
            "scheme as truth and are not scored."
        )
    if counts.num_silent:
        silent = counted(counts.num_silent, "point was", "points were")
        said.append(f"Scan {scan.name}: {silent} given no class of the scheme.")
    if scan.confidence is None:
        said.append(f"Scan {scan.name} comes without confidence.")
    return said
