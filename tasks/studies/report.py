"""The report of a study: its table as Markdown, and pictures of its curves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from models.metrics import Scores
from pointcloud import markdown
from tasks.prefect_ui.training_pictures import COLOURS, GREY, Line, Panel, curve, draw_confusion, draw_panels
from tasks.studies.study import Outcome, Report
from tasks.studies.table import row_of, summary_rows, to_table

_REFERENCE = "reference"


def report_ablation(outcomes: Sequence[Outcome], names: tuple[str, ...]) -> Report:
    """The table of an ablation, and the curves of its groups, each beside the reference.

    Args:
        outcomes: one per row of the table, the rows of a group together.
        names: of the C classes.
    """
    rows = [row_of(outcome, names) for outcome in outcomes]
    reference = next((row["val_miou"] for row in rows if row["name"] == _REFERENCE), None)
    heads = [
        "row", "what", "layers", "channels", "k", "parameters", "best epoch", "validation mIoU", "difference",
        "test mIoU", "test OA", "s per epoch",
    ]  # fmt: skip
    cells = []
    for row in rows:
        known = None not in (row["val_miou"], reference) and row["name"] != _REFERENCE
        difference = f"{100 * (row['val_miou'] - reference):+.1f}" if known else ""
        seconds = row["seconds_per_epoch"]
        cells.append(
            [
                row["name"], row["about"], str(row["num_layers"]), str(row["channels"]), str(row["k"]),
                f"{row['parameters']:,}", _epoch(row), _per_cent(row["val_miou"]), difference,
                _per_cent(row["test_miou"]), _per_cent(row["test_oa"]), "–" if seconds is None else f"{seconds:.1f}",
            ]
        )  # fmt: skip
    lines = markdown.table(heads, cells, align="llr")
    text = "\n".join([*lines, "", *_words(outcomes)]) + "\n"
    return Report(to_table(rows, names), text, {"curves": draw_panels(_panels_of_groups(outcomes))})


def report_folds(outcomes: Sequence[Outcome], names: tuple[str, ...]) -> Report:
    """The table of a cross-validation with the mean and the sum of its folds, their curves, their confusion."""
    rows = [row_of(outcome, names) for outcome in outcomes]
    summary = summary_rows(rows, names)
    heads = [
        "fold", "test mIoU", "test OA", *(f"IoU {name}" for name in names), "points", "validation mIoU", "best epoch",
    ]  # fmt: skip
    cells = []
    for row in (*rows, *summary):
        iou = [_per_cent((row["test_iou"] or {}).get(name)) for name in names]
        points = "–" if row["test_points"] is None else f"{row['test_points']:,}"
        of_training = [_per_cent(row["val_miou"]), _epoch(row)] if row in rows else ["", ""]
        cells.append(
            [
                row["name"],
                _per_cent(row["test_miou"]),
                _per_cent(row["test_oa"]),
                *iou,
                points,
                *of_training,
            ]
        )
    lines = markdown.table(heads, cells, align="lr")
    pooled = np.zeros((len(names), len(names) + 1), np.int64)
    if summary:
        pooled = np.array(summary[-1]["test_confusion"], np.int64)
        spread = np.std([row["test_miou"] or 0.0 for row in rows if row["test_confusion"] is not None])
        lines += [
            "",
            f"The folds' test mIoU spreads by {100 * spread:.1f} points (standard deviation). The folds together:",
            "",
            Scores.from_confusion(pooled, names).to_markdown(),
        ]
    text = "\n".join([*lines, "", *_words(outcomes)]) + "\n"
    drawn = [(outcome, COLOURS[n % len(COLOURS)], False) for n, outcome in enumerate(outcomes)]
    pictures = {
        "curves": draw_panels(_panels("folds", drawn)), "confusion": draw_confusion(pooled.tolist(), names)
    }  # fmt: skip
    return Report(to_table([*rows, *summary], names), text, pictures)


def _panels_of_groups(outcomes: Sequence[Outcome]) -> list[Panel]:
    """Of each group of rows; where depths are compared they give the colour, and plain layers are dashed."""
    reference = [(o, GREY, False) for o in outcomes if o.training.name == _REFERENCE]
    rest = [o for o in outcomes if o.training.name != _REFERENCE]
    panels: list[Panel] = []
    for group, members in groupby(rest, key=lambda outcome: outcome.training.group):
        rows = list(members)
        by_depth = len({o.training.job.network.num_layers for o in rows}) > 1
        keys = [o.training.job.network.num_layers if by_depth else o.training.name for o in rows]
        colours = {key: COLOURS[n % len(COLOURS)] for n, key in enumerate(dict.fromkeys(keys))}
        drawn = [
            (o, colours[key], by_depth and o.training.job.network.layer == "plain")
            for key, o in zip(keys, rows, strict=True)
        ]
        # The reference may be one of the rows under another name.
        folders = {o.training.job.out for o in rows}
        beside = [each for each in reference if each[0].training.job.out not in folders]
        panels += _panels(group, [*beside, *drawn])
    return panels or _panels(_REFERENCE, reference)


def _panels(title: str, drawn: Sequence[tuple[Outcome, str, bool]]) -> list[Panel]:
    """Training loss and validation mIoU of outcomes, each with a colour and whether it is dashed."""

    def lines(key: str) -> list[Line]:
        return [
            Line(o.training.name, curve(o.checkpoint.history if o.checkpoint else (), key), colour, dashed)
            for o, colour, dashed in drawn
        ]

    return [
        Panel(f"{title}: training loss", lines("train_loss")),
        Panel(f"{title}: validation mIoU", lines("val_miou"), 1.0),
    ]


def _words(outcomes: Sequence[Outcome]) -> list[str]:
    """Notes below the table: the settings, failed trainings, those still to come."""
    plan = outcomes[0].training.job.training
    waiting = [o.training.name for o in outcomes if o.checkpoint is None and not o.error]
    return [
        f"{plan.epochs} epoch(s), batches of {plan.batch_size} blocks, seed {plan.seed}; shares in per cent. The best "
        "epoch is that of the validation split. The test split, where there is one, is scored once, after that, on the "
        "points of its blocks.",
        *(f"\n{o.training.name} failed: {o.error}" for o in outcomes if o.error),
        *([f"\nStill to be trained: {', '.join(waiting)}."] if waiting else []),
    ]


def _epoch(row: dict[str, Any]) -> str:
    return row["state"] if row["best_epoch"] is None else f"{row['best_epoch']} of {row['epochs']}"


def _per_cent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
