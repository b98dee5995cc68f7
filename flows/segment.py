"""Scans to labelled clouds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from prefect import flow, get_run_logger

from flows.parameters.segment import SegmentParameters
from pointcloud.storage import ledger
from pointcloud.storage.inputs import Source
from pointcloud.storage.lock import held
from tasks.collection.plan import choose, examine_scans
from tasks.collection.quarantine import check_quarantine
from tasks.prefect_ui.scan_states import show_markdown
from tasks.runtime.isolation import isolated
from tasks.segmenting.estimate import estimate
from tasks.segmenting.job import STAGE, SegmentJob
from tasks.segmenting.morning_report import ReviewOptions, write_report
from tasks.segmenting.scans import find_scans
from tasks.segmenting.segment import actors_prepared, foresee, segment_scans


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentInputs:
    """What the parameters of one run mean.

    Attributes:
        job: what is done.
        sources: the scans.
        left_out: sentences about what is left out of them.
        ahead: actors that have been started for the job already.
    """

    job: SegmentJob
    sources: list[Source]
    left_out: list[str]
    ahead: list[Any] = field(default_factory=list)

    @staticmethod
    def of(parameters: SegmentParameters) -> SegmentInputs:
        """Find the scans and the checkpoint. Raises PointloomError for what can be checked before work starts."""
        job, left_out = parameters.job(), list[str]()
        sources = find_scans(parameters.scans, parameters.out, parameters.format, left_out.append)
        choose(sources, parameters.only)
        job.given.check(source.name for source in sources)
        return SegmentInputs(job=job, sources=sources, left_out=left_out)


def check(parameters: SegmentParameters) -> None:
    """Check what can be checked before work starts. Raises PointloomError."""
    parameters.hand_on(SegmentInputs.of(parameters))


@contextmanager
def prepared(parameters: SegmentParameters) -> Iterator[None]:
    """Ray and its actors, where no scan was labelled before; else the flow starts them where it needs them.

    Raises:
        PointloomError: Ray does not start, or the cluster does not answer.
    """
    inputs: SegmentInputs = parameters.handed_on() or SegmentInputs.of(parameters)
    parameters.hand_on(inputs)
    if parameters.dry_run or not ledger.is_empty(parameters.out, STAGE):
        yield
        return
    with actors_prepared(inputs.job, len(choose(inputs.sources, parameters.only))) as ahead:
        parameters.hand_on(replace(inputs, ahead=ahead))
        yield


@flow(name="segment")
def segment(parameters: SegmentParameters) -> list[str]:
    """Label every point of every scan and write copies that differ only in what labelling may change.

    Scans already labelled by this checkpoint are kept, and so are the labelled clouds of scans that are no longer
    among the inputs. A page about all of them and what to look at is written beside them. Returns the URIs of the
    labelled clouds, or of a dry run the plan.
    """
    logger, out = get_run_logger(), parameters.out
    inputs: SegmentInputs = parameters.handed_on() or SegmentInputs.of(parameters)
    job = inputs.job
    for sentence in inputs.left_out:
        logger.warning(sentence)
    num_readers = parameters.num_actors
    with isolated(num_readers, parameters.memory_mb, parameters.time_limit_s) as processes:
        examine = partial(
            examine_scans,
            STAGE,
            out,
            inputs.sources,
            job.config,
            job.key,
            processes,
            num_readers,
            given=job.given,
            only=parameters.only,
            retry_quarantined=parameters.retry_quarantined,
            verify_content=parameters.verify_content,
        )
        if parameters.dry_run:
            collection = examine(dry_run=True)
            lines = [
                collection.plan.to_markdown(),
                job.warning,
                estimate(collection, job, may_sample=True),
                foresee(collection, job),
                *collection.remarks,
                *collection.unreached.values(),
            ]
            text = "\n".join(filter(None, lines))
            show_markdown(f"plan-{out}", text, f"What would be done in {out}")
            return [text]
        with held(out, parameters.wait_s) as lock:
            job = replace(job, lock=lock)
            collection = examine()
            logger.info("%s; %s", collection.plan, estimate(collection, job))
            for sentence in filter(None, [job.warning, foresee(collection, job), *collection.remarks]):
                logger.warning(sentence)
            began = time.monotonic()
            records = segment_scans(collection, job, inputs.ahead)
            review = ReviewOptions(below=parameters.review_below, price_per_hour=parameters.price_per_hour)
            try:
                lock.check()
                write_report(collection, records, job, review, time.monotonic() - began)
            finally:
                # If several errors occur, the one about the scans is the most useful.
                asked_for = set(choose(inputs.sources, parameters.only))
                check_quarantine([r for r in records if r.scan in asked_for], parameters.max_quarantined)
    return [ledger.output_uri(out, record) for record in records if record.path]
