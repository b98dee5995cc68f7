"""A study does what is not done yet, and writes and shows its table after each training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch
from prefect import flow

from models.network.deepgcn import DeepGCN
from models.weights.checkpoint import save_checkpoint
from tasks.studies.study import TABLE, Outcome, Report, StudyWatch, Training, run_study
from tasks.training.job import TrainJob
from tasks.training.result import checkpoint_of
from tests.support.prefect_server import artifacts_of, prefect_server
from tests.tasks.training.conftest import small_job

__all__ = ["prefect_server", "small_job"]

pytestmark = pytest.mark.usefixtures("prefect_server")


def report(outcomes: Sequence[Outcome]) -> Report:
    states = [o.error or ("done" if o.checkpoint else "to do") for o in outcomes]
    table = pa.table({"name": [o.training.name for o in outcomes], "state": states})
    return Report(table, f"| {' | '.join(states)} |", {"curve": "<svg xmlns='http://www.w3.org/2000/svg'/>"})


def row(name: str, job: TrainJob) -> Training:
    return Training(name=name, group="rows", about=name, job=job)


def test_what_is_finished_is_not_trained_again_and_needs_no_ray(small_job: TrainJob, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {"history": [{"epoch": 1, "val_miou": 0.5}], "best": DeepGCN(small_job.network).state_dict()}
    save_checkpoint(
        small_job.out, checkpoint_of(small_job, small_job.blocks().manifest, state, {"key": small_job.key()})
    )
    out = tmp_path / "study"

    @flow
    def study() -> list[Outcome]:
        # Two rows with one checkpoint folder are one training.
        return run_study("two rows", str(out), [row("a", small_job), row("b", small_job)], 2, report)

    ran = ray.is_initialized()  # the one that other tests share
    outcomes = study()
    assert [o.checkpoint.metrics["val_miou"] for o in outcomes] == [0.5, 0.5]
    assert ray.is_initialized() == ran
    assert pq.read_table(out / TABLE).to_pydict() == {"name": ["a", "b"], "state": ["done", "done"]}
    assert (out / "table.md").read_text() == "| done | done |"


def test_the_table_in_the_ui_is_brought_up_to_date(small_job: TrainJob, tmp_path: Path) -> None:
    title, outcome = f"study of {tmp_path.name}", Outcome(row("a", small_job))

    @flow
    def watched() -> None:
        watch = StudyWatch(title, str(tmp_path / "study"), report, 1)
        watch.show([outcome])
        watch.show([replace(outcome, error="the loss became NaN.")], step=True)

    watched()
    (table,) = artifacts_of(f"{title}: table")
    assert table.data == "| the loss became NaN. |"
    assert (tmp_path / "study" / "curve.svg").read_text().startswith("<svg")
    assert len(artifacts_of(f"{title}: curve")) == 1
