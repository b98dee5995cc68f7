"""Studies: many trainings on Ray, several at once, each kept when it is finished, and one table of them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import get_client, get_run_logger
from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner
from slugify import slugify

from models.weights.checkpoint import Checkpoint
from pointcloud.errors import PointloomError
from pointcloud.storage import files
from pointcloud.storage.lock import Lock
from tasks.prefect_ui.scan_states import Progress
from tasks.prefect_ui.survey_map import as_data_uri
from tasks.runtime.cluster import ray_session
from tasks.training.job import TrainJob
from tasks.training.result import finished_checkpoint
from tasks.training.train import train_network

TABLE = "table.parquet"


@dataclass(frozen=True, kw_only=True)
class Training:
    """One row of a study.

    Attributes:
        name: name of the row.
        group: rows of a group are compared with each other.
        about: what is special about it, in words.
        job: the training.
    """

    name: str
    group: str
    about: str
    job: TrainJob


@dataclass(frozen=True)
class Outcome:
    """The result of a training: the record of its checkpoint, or why it failed; neither before it has ended."""

    training: Training
    checkpoint: Checkpoint | None = None
    error: str = ""


@dataclass(frozen=True)
class Report:
    """A study so far: its table, the table as Markdown, and pictures (name -> SVG)."""

    table: pa.Table
    markdown: str
    pictures: dict[str, str]


def run_study(
    title: str, out: str, trainings: Sequence[Training], at_once: int,
    report: Callable[[Sequence[Outcome]], Report], lock: Lock | None = None,
) -> list[Outcome]:  # fmt: skip
    """Train what is not trained yet, `at_once` at a time; the report is written and shown after each.

    Trainings with the same checkpoint folder are one. One that fails is named, and the others go on.

    Args:
        title: for people.
        out: where the report goes; also names the study in the Prefect UI.
        trainings: in the order of the table.
        at_once: trainings at the same time.
        report: makes it of the outcomes, in the order of the trainings.
        lock: the lock on `out`; without it no checkpoint is written.

    Raises:
        PointloomError: trainings failed; what the others gave is in the report.
    """
    logger = get_run_logger()
    # Finished ones need no Ray, and those of one folder are one.
    outcomes = [Outcome(t, None if t.job.fresh else finished_checkpoint(t.job)) for t in trainings]
    todo = {o.training.job.out: o.training for o in outcomes if o.checkpoint is None}
    logger.info("%s: %d rows, %d trainings to do, %d at a time", title, len(trainings), len(todo), at_once)
    watch = StudyWatch(title, out, report, len(todo))
    watch.show(outcomes)
    cpus = max((t.job.num_workers * t.job.cpus_per_worker for t in todo.values()), default=0)
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=at_once)
    with ray_session(min(at_once, len(todo)) * cpus) if todo else nullcontext(), runner as threads:
        futures: dict[PrefectFuture[Any], str] = {
            threads.submit(
                train_network.with_options(task_run_name=f"train {training.name}"),
                {"job": training.job, "lock": lock},
            ): folder
            for folder, training in todo.items()
        }
        for future in as_completed(list(futures)):
            failure = future.result(raise_on_failure=False)
            error = _sentence(failure) if isinstance(failure, BaseException) else ""
            outcomes = [
                _ended(outcome, error) if outcome.training.job.out == futures[future] else outcome
                for outcome in outcomes
            ]
            if error:
                logger.warning("%s failed: %s", todo[futures[future]].name, error)
            watch.show(outcomes, step=True)
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        raise PointloomError(
            f"{len(failed)} of {len(outcomes)} trainings failed ({', '.join(o.training.name for o in failed)}), the "
            f"first because {failed[0].error.rstrip('.')}; the others are in {files.join(out, TABLE)!r}; run "
            "the study again, it trains those that failed."
        )
    return outcomes


def _ended(outcome: Outcome, error: str) -> Outcome:
    return replace(
        outcome, checkpoint=None if error else finished_checkpoint(outcome.training.job), error=error
    )


def _sentence(failure: BaseException) -> str:
    return str(failure) if isinstance(failure, PointloomError) else f"{type(failure).__name__}: {failure}"


class StudyWatch:
    """A study while it runs: a progress bar, its table and its pictures in the Prefect UI, and the files in `out`.

    Args:
        title: for people.
        out: folder or URI; takes `TABLE`, table.md and the pictures.
        report: makes the report of the outcomes so far.
        num_todo: trainings that the bar counts.
    """

    def __init__(
        self, title: str, out: str, report: Callable[[Sequence[Outcome]], Report], num_todo: int
    ) -> None:
        self._title, self._out, self._report = title, out, report
        self._progress = Progress(f"study-{out}", f"Trainings of {title}", num_todo)
        self._artifacts: dict[str, Any] = {}

    def show(self, outcomes: Sequence[Outcome], step: bool = False) -> None:
        """Write and show the report of these outcomes; with `step` one training more has ended."""
        report = self._report(outcomes)
        sink = pa.BufferOutputStream()
        pq.write_table(report.table, sink, compression="zstd")
        files.write_bytes(files.join(self._out, TABLE), sink.getvalue().to_pybytes())
        files.write_bytes(files.join(self._out, "table.md"), report.markdown.encode())
        for name, picture in report.pictures.items():
            files.write_bytes(files.join(self._out, f"{name}.svg"), picture.encode())
        if step:
            self._progress.step()
        self._show("table", report.markdown)
        for name, picture in report.pictures.items():
            self._show(name, as_data_uri(picture))

    def _show(self, what: str, data: str) -> None:
        key, description = slugify(f"{what}-{self._out}"), f"{self._title}: {what}"
        if what in self._artifacts:
            with get_client(sync_client=True) as client:
                client.update_artifact(self._artifacts[what], ArtifactUpdate(data=data))
        elif what == "table":
            self._artifacts[what] = create_markdown_artifact(data, key=key, description=description)
        else:
            self._artifacts[what] = create_image_artifact(data, key=key, description=description)
