"""The rows of a study's table: what is known of a training before, while and after it runs."""

from __future__ import annotations

import pytest

from models.network.deepgcn import DeepGCN
from tasks.studies.study import Outcome
from tasks.studies.table import num_parameters, row_of, summary_rows, table_schema, to_table
from tests.tasks.studies.test_report import BASE, CONFUSIONS, NAMES, done, training


def test_what_is_not_known_yet_is_empty() -> None:
    row = row_of(Outcome(training("a")), NAMES)
    assert (row["state"], row["epochs"], row["num_layers"]) == ("to do", 2, 3)
    assert row["val_miou"] is row["test_miou"] is row["seconds_per_epoch"] is None
    failed = row_of(Outcome(training("a"), error="the loss became NaN."), NAMES)
    assert (failed["state"], failed["error"]) == ("failed", "the loss became NaN.")


def test_a_finished_training_has_the_figures_of_its_best_epoch() -> None:
    row = row_of(done(training("a"), 0.5, CONFUSIONS[0]), NAMES)
    assert (row["state"], row["best_epoch"], row["val_miou"]) == ("done", 1, 0.5)
    assert row["val_iou"] == {"ground": 0.5, "roof|wall": None}
    assert row["seconds_per_epoch"] == 3.0
    assert (row["test_points"], row["test_oa"]) == (20, 0.85)
    assert row["test_confusion"] == CONFUSIONS[0]


def test_a_summary_counts_folds_alike_and_points_together() -> None:
    rows = [row_of(done(training(str(n)), 0.5, counts), NAMES) for n, counts in enumerate(CONFUSIONS)]
    mean, together = summary_rows([*rows, row_of(Outcome(training("c")), NAMES)], NAMES)
    assert mean["test_oa"] == pytest.approx((17 / 20 + 7 / 8) / 2)
    assert together["test_oa"] == pytest.approx(24 / 28)
    assert summary_rows([row_of(done(training("a"), 0.5), NAMES)], NAMES) == [], "none is tested"


def test_the_table_has_the_columns_of_its_schema_in_every_state() -> None:
    rows = [
        row_of(outcome, NAMES)
        for outcome in (Outcome(training("a")), done(training("b"), 0.5, CONFUSIONS[1]))
    ]
    table = to_table([*rows, *summary_rows(rows, NAMES)], NAMES)
    assert table.schema == table_schema(NAMES)
    assert table.num_rows == 4


def test_parameters_are_counted_without_making_the_network() -> None:
    assert num_parameters(BASE) == sum(p.numel() for p in DeepGCN(BASE).parameters())
