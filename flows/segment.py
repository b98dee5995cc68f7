"""Scans to labelled clouds."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

from cyclopts import Parameter
from prefect import flow, get_run_logger
from pydantic import Field

from flows.embedded_server import run
from flows.parameters import FlowParameters
from pointcloud.formats.given_crs import CRS_HELP, UNITS_HELP, GivenCrs
from pointcloud.labelling.options import LabelOptions, parse_codes
from pointcloud.storage import ledger
from pointcloud.storage.contents import VERIFY_CONTENT_HELP
from pointcloud.storage.inputs import Source
from pointcloud.storage.lock import held
from tasks.collection.plan import choose, examine_scans
from tasks.collection.quarantine import check_quarantine
from tasks.prefect_ui.scan_states import show_markdown
from tasks.runtime.isolation import isolated
from tasks.segmenting.estimate import estimate
from tasks.segmenting.job import STAGE, SegmentJob
from tasks.segmenting.morning_report import REPORT, ReviewOptions, write_report
from tasks.segmenting.scans import find_scans
from tasks.segmenting.segment import foresee, plan_segmenting, segment_scans


class SegmentParameters(FlowParameters):
    """Which scans, which checkpoint, and where the labelled clouds go."""

    scans: list[str] = Field(
        description="Scans (LAS, LAZ, COPC, PLY, NPZ, NPY, E57), folders, globs or S3DIS rooms; paths or s3://, gs://, "
        "abfs:// URIs."
    )
    checkpoint: str = Field(description="Folder or URI of a checkpoint.")
    out: str = Field(description="Folder or URI of the labelled clouds, which keep the names of their scans.")
    overlap: int | None = Field(
        None, ge=1, description="Shifted grids whose logits are averaged; as in training unless given."
    )
    rotations: int = Field(
        1,
        ge=1,
        description="Turns of each block about the vertical whose logits are averaged; costs as often.",
    )
    smoothing: int = Field(
        0,
        ge=0,
        description="Nearest points, itself among them, whose logits are averaged for each point's; 0: none.",
    )
    min_confidence: float = Field(0, ge=0, le=1, description="Points below it become unclassified (code 1).")
    preserve: list[int] = Field([], description="Class codes of the scans that never change.")
    only_unclassified: bool = Field(False, description="Change only points whose code is 0 or 1.")
    keep_original: bool = Field(
        False, description="Keep the delivered classes as extra dimension original_classification."
    )
    entropy: bool = Field(
        False, description="Write the entropy of the probabilities, 0 to 1, as extra dimension."
    )
    probabilities: bool = Field(
        False, description="Write the probability of each class as extra dimension, p_ and its name."
    )
    codes: list[str] = Field(
        [],
        description="name=code, as vegetation=4,water=9: class codes to write instead of the checkpoint's.",
    )
    format: Literal["same", "las", "laz", "ply", "parquet"] = Field(
        "same",
        description="Of the labelled clouds: the scan's (PLY where that is neither LAS nor PLY), the other LAS, or all "
        "points with all dimensions and the CRS.",
    )
    upgrade_format: bool = Field(
        False,
        description="Where a class code above 31 needs it, point formats 0 to 5 become 6 to 10, in LAS 1.4.",
    )
    noise: Literal["exclude", "use"] | None = Field(
        None,
        description="exclude: points marked as noise (classes 7 and 18) or as withheld, and isolated ones far below or "
        "above all others, are no context for others and keep their class; use: they are labelled like any other; as "
        "in training unless given.",
    )
    noise_code: int | None = Field(
        None, ge=0, le=31, description="Class code written for isolated points that were found, as 7."
    )
    num_actors: int = Field(1, ge=1, description="Ray actors, each with the network and one scan at a time.")
    cpus_per_actor: int = Field(0, ge=0, description="CPUs of each; 0 shares out what this machine has.")
    gpu: bool = Field(
        False,
        description="Each actor has a GPU of its own; without it several actors use none, a single one any there is.",
    )
    memory_mb: int = Field(
        3000, ge=500, description="A scan whose decoding needs more memory than this is quarantined."
    )
    time_limit_s: float = Field(
        3600, gt=0, description="A scan whose decoding takes longer than this is quarantined."
    )
    drift: Literal["warn", "quarantine"] = Field(
        "warn",
        description="What becomes of a scan unlike the training: in density, height, intensity, returns, colours.",
    )
    retry_quarantined: bool = Field(True, description="Try again what could not be read, though unchanged.")
    crs: list[str] = Field([], description=CRS_HELP)
    units: list[str] = Field([], description=UNITS_HELP)
    verify_content: bool = Field(False, description=VERIFY_CONTENT_HELP)
    only: list[str] = Field(
        [],
        description="Names or globs of those of the scans to work on, quarantined ones too; the others stay, as "
        "neighbours and in the report.",
    )
    max_quarantined: int = Field(
        0, ge=0, description="The flow fails when more scans than this are unreadable."
    )
    review_below: float = Field(
        0.6,
        ge=0,
        le=1,
        description="Tiles with a smaller mean confidence, and places where points with a smaller one lie close "
        "together, are polygons in review/review.gpkg.",
    )
    price_per_hour: float = Field(
        0, ge=0, description="Of all machines together, for the report's cost per km²; 0: not known."
    )
    wait_s: float = Field(
        0, ge=0, description="How long to wait for another run that writes into this folder."
    )
    cluster_wait_s: float = Field(
        120, ge=0, description="Seconds a Ray cluster may take until it has room for an actor."
    )
    dry_run: bool = Field(
        False,
        description="Only say what would be done, and how long it would take: where this checkpoint and these "
        "settings have labelled nothing yet, by labelling a sample for some 20 s.",
    )

    def job(self) -> SegmentJob:
        """The job these parameters describe. Raises PointloomError for a checkpoint or options that cannot be used."""
        options = LabelOptions(
            overlap=self.overlap,
            rotations=self.rotations,
            smoothing=self.smoothing,
            min_confidence=self.min_confidence,
            preserve=tuple(sorted(set(self.preserve))),
            only_unclassified=self.only_unclassified,
            keep_original=self.keep_original,
            entropy=self.entropy,
            probabilities=self.probabilities,
            codes=parse_codes(self.codes),
            format=self.format,
            upgrade=self.upgrade_format,
            noise=self.noise,
            noise_code=self.noise_code,
        )
        return plan_segmenting(
            checkpoint=self.checkpoint,
            out=self.out,
            options=options,
            num_actors=self.num_actors,
            cpus_per_actor=self.cpus_per_actor,
            memory_mb=self.memory_mb,
            time_limit_s=self.time_limit_s,
            quarantine_drift=self.drift == "quarantine",
            gpu=self.gpu,
            wait_s=self.cluster_wait_s,
            given=GivenCrs.parse(self.crs, self.units),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentInputs:
    """What the parameters of one run mean: the job, the scans, and sentences about what is left out of them."""

    job: SegmentJob
    sources: list[Source]
    left_out: list[str]

    @staticmethod
    def of(parameters: SegmentParameters) -> SegmentInputs:
        """Look for them. Raises PointloomError for what can be told before work starts."""
        job, left_out = parameters.job(), list[str]()
        sources = find_scans(parameters.scans, parameters.out, parameters.format, left_out.append)
        choose(sources, parameters.only)
        job.given.check(source.name for source in sources)
        return SegmentInputs(job=job, sources=sources, left_out=left_out)


def check(parameters: SegmentParameters) -> None:
    """What can be told before work starts. Raises PointloomError."""
    parameters.hand_on(SegmentInputs.of(parameters))


@flow(name="segment")
def segment(parameters: SegmentParameters) -> list[str]:
    """Label every point of every scan and write copies that differ in what labelling may change alone.

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
            records = segment_scans(collection, job)
            review = ReviewOptions(below=parameters.review_below, price_per_hour=parameters.price_per_hour)
            try:
                lock.check()
                write_report(collection, records, job, review, time.monotonic() - began)
            finally:
                # Of several reasons to fail, what became of the scans says most.
                asked_for = set(choose(inputs.sources, parameters.only))
                check_quarantine([r for r in records if r.scan in asked_for], parameters.max_quarantined)
    return [ledger.output_uri(out, record) for record in records if record.path]


def command(*, parameters: Annotated[SegmentParameters, Parameter(name="*")]) -> None:
    """Label scans with a checkpoint; the copies differ in classes and what is written beside them alone."""
    for done in run(check, segment, parameters):
        print(done if parameters.dry_run else f"labelled cloud: {done}")
    if not parameters.dry_run:
        print(f"report: {parameters.out.rstrip('/')}/{REPORT}")
