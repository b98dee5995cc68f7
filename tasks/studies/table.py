"""The one table of a study: a row of figures for each training, and of several folds their mean and their sum."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from models.metrics import Scores
from models.network.configurations import DeepGCNConfig
from models.network.deepgcn import DeepGCN
from tasks.studies.study import Outcome

_NETWORK = ("num_layers", "channels", "k", "layer", "convolution", "dynamic", "stochastic_epsilon")


def table_schema(names: tuple[str, ...]) -> pa.Schema:
    """Columns of the table; shares are in [0, 1], those of classes structs with a field for each of `names`.

    `test_confusion` is (C, C + 1), rows the true class, the last column *other*.
    """
    by_class = pa.struct([(name, pa.float64()) for name in names])
    text, whole, number, numbers = pa.string(), pa.int64(), pa.float64(), pa.list_(pa.float64())
    return pa.schema(
        [
            ("name", text), ("group", text), ("about", text), ("state", text), ("error", text), ("checkpoint", text),
            ("num_layers", whole), ("channels", whole), ("k", whole), ("layer", text), ("convolution", text),
            ("dynamic", pa.bool_()), ("stochastic_epsilon", number), ("dilations", pa.list_(whole)),
            ("parameters", whole), ("epochs", whole), ("best_epoch", whole), ("seconds_per_epoch", number),
            ("val_miou", number), ("val_iou", by_class), ("val_miou_by_epoch", numbers),
            ("train_loss_by_epoch", numbers), ("test_miou", number), ("test_oa", number), ("test_points", whole),
            ("test_iou", by_class), ("test_confusion", pa.list_(pa.list_(whole))),
        ]
    )  # fmt: skip


def row_of(outcome: Outcome, names: tuple[str, ...]) -> dict[str, Any]:
    """The row of one training; what is not known yet is None."""
    job, checkpoint = outcome.training.job, outcome.checkpoint
    row = _empty(outcome.training.name, names) | {
        "group": outcome.training.group,
        "about": outcome.training.about,
        "state": "done" if checkpoint else "failed" if outcome.error else "to do",
        "error": outcome.error,
        "checkpoint": job.out,
        "parameters": num_parameters(job.network),
        **{name: getattr(job.network, name) for name in _NETWORK},
        "dilations": list(job.network.layer_dilations),
        "epochs": job.training.epochs,
    }
    if checkpoint is None:
        return row
    history, best = checkpoint.history, checkpoint.metrics["epoch"]
    row |= {
        "best_epoch": best,
        "val_miou": checkpoint.metrics["val_miou"],
        "val_iou": dict(zip(names, history[best - 1]["val_iou"], strict=True)),
        "val_miou_by_epoch": [epoch["val_miou"] for epoch in history],
        "train_loss_by_epoch": [epoch["train_loss"] for epoch in history],
        "seconds_per_epoch": float(np.median([epoch["seconds"] for epoch in history])),
    }
    test = checkpoint.metrics.get("test")
    return row | (_test_columns(np.array(test["confusion"], np.int64), names) if test else {})


def summary_rows(rows: Sequence[dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The mean of the folds that were tested, each counting alike, and all their points as one set; none before."""
    tested = [row for row in rows if row["test_confusion"] is not None]
    if not tested:
        return []
    mean = {
        "test_miou": _mean([row["test_miou"] for row in tested]),
        "test_oa": _mean([row["test_oa"] for row in tested]),
        "test_iou": {name: _mean([row["test_iou"][name] for row in tested]) for name in names},
    }
    pooled = np.sum([row["test_confusion"] for row in tested], axis=0)
    return [
        _empty("mean of the folds", names) | mean,
        _empty("the folds together", names) | _test_columns(pooled, names),
    ]


def to_table(rows: Sequence[dict[str, Any]], names: tuple[str, ...]) -> pa.Table:
    """The rows of a study as a table with the columns of `table_schema`."""
    return pa.Table.from_pylist(list(rows), table_schema(names))


@cache
def num_parameters(network: DeepGCNConfig) -> int:
    """Trainable parameters; the network is laid out, but takes no memory."""
    with torch.device("meta"):
        return sum(p.numel() for p in DeepGCN(network).parameters())


def _empty(name: str, names: tuple[str, ...]) -> dict[str, Any]:
    columns = dict.fromkeys(table_schema(names).names)
    return columns | {"name": name, "group": "summary", "state": "done", "error": ""}


def _test_columns(confusion: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    scores = Scores.from_confusion(confusion, names)
    return {
        "test_miou": scores.miou,
        "test_oa": scores.overall_accuracy,
        "test_points": scores.num_scored,
        "test_iou": dict(zip(names, scores.iou, strict=True)),
        "test_confusion": confusion.tolist(),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None
