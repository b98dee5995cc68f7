"""Scores of several scans, and of two versions of their labels: as tables for people and as Parquet for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.metrics import Scores
from pointcloud import markdown
from pointcloud.storage import files
from tasks.report.content import Table
from tasks.report.figures import grouped, per_cent

ALL = "all scans"
_SCORES = pa.schema(
    [
        pa.field("version", pa.string(), metadata={"doc": "labelled, or against"}),
        pa.field("scan", pa.string(), metadata={"doc": f"its name, or {ALL!r}"}),
        pa.field("class", pa.string()),
        *(pa.field(name, pa.float64()) for name in ("iou", "precision", "recall", "f1")),
        pa.field("support", pa.int64(), metadata={"doc": "true points"}),
        pa.field("predicted", pa.int64(), metadata={"doc": "scored points given the class"}),
        pa.field(
            "given", pa.list_(pa.int64()), metadata={"doc": "true points by class given, the last: no class"}
        ),
    ]
)


@dataclass(frozen=True)
class ScanScores:
    """What was counted of one scan, C classes.

    Attributes:
        scan: its name.
        confusion: (C, C + 1) of its labels.
        against: (C, C + 1) of the other version's labels; None without one.
        num_points: all of them; num_changed: that the other version labels differently.
    """

    scan: str
    confusion: np.ndarray
    against: np.ndarray | None
    num_points: int
    num_changed: int


def total(scores: Sequence[ScanScores]) -> ScanScores:
    """The sum over all scans."""
    others = [each.against for each in scores if each.against is not None]
    return ScanScores(
        ALL,
        np.sum([each.confusion for each in scores], axis=0),
        np.sum(others, axis=0) if others else None,
        sum(each.num_points for each in scores),
        sum(each.num_changed for each in scores),
    )


def tables(scores: Sequence[ScanScores], names: Sequence[str]) -> list[Table]:
    """IoU, F1 and accuracy of each scan, and where there are two versions what the first gained or lost."""
    whole = total(scores)
    several = [*scores, whole] if len(scores) > 1 else list(scores)
    made = []
    if len(scores) > 1:
        rows = [_row(each.scan, Scores.from_confusion(each.confusion, names)) for each in several]
        heads = (
            "scan",
            "points",
            "mIoU",
            "accuracy",
            *(f"IoU {n}" for n in names),
            *(f"F1 {n}" for n in names),
        )
        made.append(Table("Scores per scan", "On every scored point of each.", heads, tuple(rows)))
    if whole.against is not None:
        heads = (
            "scan",
            "labels that differ",
            "mIoU",
            "mIoU of the other",
            "change",
            *(f"IoU {n}" for n in names),
        )
        note = "Against the other version of the labels; changes of IoU in percentage points, + is better."
        made.append(Table("Two versions", note, heads, tuple(_change(each, names) for each in several)))
    return made


def _row(scan: str, scores: Scores) -> tuple[str, ...]:
    shares = (scores.miou, scores.overall_accuracy, *scores.iou, *scores.f1)
    return scan, grouped(scores.num_scored), *map(per_cent, shares)


def _change(each: ScanScores, names: Sequence[str]) -> tuple[str, ...]:
    assert each.against is not None, "all scans have two versions, or none"
    now, other = (Scores.from_confusion(counts, names) for counts in (each.confusion, each.against))
    gained = [_difference(mine, theirs) for mine, theirs in zip(now.iou, other.iou, strict=True)]
    differ = per_cent(each.num_changed / each.num_points if each.num_points else None)
    return (
        each.scan, differ, per_cent(now.miou), per_cent(other.miou), _difference(now.miou, other.miou), *gained
    )  # fmt: skip


def _difference(mine: float | None, theirs: float | None) -> str:
    return "–" if mine is None or theirs is None else f"{100 * (mine - theirs):+.1f}"


def to_markdown(title: str, scores: Sequence[ScanScores], names: Sequence[str]) -> str:
    """The scores of all scans together by class, the confusion, then each scan's."""
    whole = total(scores)
    lines = [
        f"# {title}",
        "",
        Scores.from_confusion(whole.confusion, names).to_markdown(),
        "",
        "## Confusion",
        "",
    ]
    counts = zip(names, whole.confusion.tolist(), strict=True)
    lines += markdown.table(
        ["true ↓ given →", *names, "other"],
        [(name, *(f"{count:,}" for count in row)) for name, row in counts],
        align="lr",
    )
    for table in tables(scores, names):
        lines += ["", f"## {table.title}", "", table.note, ""]
        lines += markdown.table(table.heads, table.rows, align="lr")
    return "\n".join(lines) + "\n"


def write_parquet(uri: str, scores: Sequence[ScanScores], names: Sequence[str]) -> None:
    """One row for each version, scan and class, all scans together last. Raises StorageError."""
    with files.staged(uri) as local_path:
        pq.write_table(
            pa.Table.from_pylist(list(_records(scores, names)), _SCORES), local_path, compression="zstd"
        )


def _records(found: Sequence[ScanScores], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for each in (*found, total(found)):
        for version, counts in (("labelled", each.confusion), ("against", each.against)):
            if counts is None:
                continue
            scores = Scores.from_confusion(counts, names).to_dict()
            for label, given in zip(scores["classes"], counts.tolist(), strict=True):
                label["class"] = label.pop("name")
                yield {"version": version, "scan": each.scan, "given": given, **label}
