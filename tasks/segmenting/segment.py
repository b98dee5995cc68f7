"""Scans to labelled clouds: one Prefect task holds the driver, which hands scans to Ray actors that keep the network.

The actors read and write the files themselves; what comes back is one small record per scan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from prefect import get_run_logger

from models.weights.checkpoint import fingerprint, read_checkpoint
from pointcloud.delivery.las_copy import fits
from pointcloud.errors import PointloomError
from pointcloud.formats.given_crs import GivenCrs
from pointcloud.formats.las_point_formats import LAST_SHORT_CODE
from pointcloud.labelling.options import UNCLASSIFIED, LabelOptions
from pointcloud.labels import LabelScheme
from pointcloud.storage import ledger
from pointcloud.storage.ledger import UNREACHED
from tasks.collection.actors import actors, actors_ahead
from tasks.collection.engine import Logger, outcome, threads, work_through
from tasks.collection.plan import Collection
from tasks.prefect_ui.scan_states import ScanStates
from tasks.prefect_ui.survey_map import boxes_of
from tasks.report.figures import counted
from tasks.runtime.cluster import await_room, ray_session
from tasks.runtime.cpus import usable_cpus
from tasks.runtime.isolation import HEAP
from tasks.runtime.repeated_notes import RepeatedNotes
from tasks.runtime.stage import stage_task
from tasks.segmenting.actor import SCANS_AT_ONCE, ScanSegmenter
from tasks.segmenting.job import STAGE, SegmentJob

_NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
"""Several actors that asked for no GPU of their own would share the first."""


def plan_segmenting(
    *, checkpoint: str, out: str, options: LabelOptions, num_actors: int, cpus_per_actor: int, memory_mb: int,
    time_limit_s: float, quarantine_drift: bool = False, gpu: bool = False, wait_s: float = 120.0,
    given: GivenCrs | None = None,
) -> SegmentJob:  # fmt: skip
    """A job whose checkpoint is there and readable.

    Args:
        checkpoint, out, options, num_actors, memory_mb, time_limit_s, quarantine_drift, gpu, wait_s, given: as
            `SegmentJob`.
        cpus_per_actor: 0 shares out what this machine has.

    Raises:
        StorageError, SchemaError: no checkpoint there, or of another schema.
        PointloomError: options that do not fit the checkpoint's tiles or classes.
    """
    identity = fingerprint(checkpoint)
    record = read_checkpoint(checkpoint, weights=False, expect=identity)
    _check_doubtful(options.scheme(record.label_scheme), options)
    config = record.block_config
    if options.overlap is not None:
        config = replace(config, overlap=options.overlap)
    if options.noise is not None:
        config = replace(config, noise=options.noise)
    return SegmentJob(
        checkpoint=checkpoint,
        identity=identity,
        record=record,
        out=out,
        num_actors=num_actors,
        cpus_per_actor=cpus_per_actor or max(1, usable_cpus() // num_actors),
        memory_mb=memory_mb,
        time_limit_s=time_limit_s,
        config=config,
        options=options,
        quarantine_drift=quarantine_drift,
        gpu=gpu,
        wait_s=wait_s,
        given=given or GivenCrs(),
    )


def _check_doubtful(scheme: LabelScheme, options: LabelOptions) -> None:
    """Raises PointloomError where doubtful points would look like points of a class, as the floor of a room."""
    taken = [c.name for c in scheme.classes if c.code == UNCLASSIFIED and c.name != "unclassified"]
    if options.min_confidence and taken:
        raise PointloomError(
            f"min_confidence gives doubtful points code {UNCLASSIFIED}, which is the class {taken[0]!r} of this "
            f"checkpoint; write another code for that, as codes {taken[0]}=101, or leave min_confidence out."
        )


def foresee(collection: Collection, job: SegmentJob) -> str:
    """A sentence on scans that, by their headers, cannot be labelled with these codes; empty when all can."""
    scheme = job.options.scheme(job.record.label_scheme)
    headers = [collection.headers[scan] for scan in collection.plan.todo if scan in collection.headers]
    small = [header.uri for header in headers if not fits(header.dimensions, scheme, job.options)]
    if not small:
        return ""
    largest = max(label.code for label in scheme.classes)
    return (
        f"{counted(len(small), 'scan', 'scans')} ({small[0]!r} first) will be quarantined: the point format ends at "
        f"class code {LAST_SHORT_CODE} and the largest to write is {largest}; ask for upgrade_format, or other codes."
    )


def _ray_options(job: SegmentJob, num_actors: int) -> dict[str, Any]:
    """Ray's options for each actor."""
    return {
        "num_cpus": job.cpus_per_actor,
        "num_gpus": int(job.gpu),
        # The session's own thresholds spare memory in training; giving each tensor back costs the network 7 %.
        "runtime_env": {"env_vars": HEAP if job.gpu or num_actors == 1 else HEAP | _NO_GPU},
    }


def _ray_session(job: SegmentJob, num_actors: int) -> AbstractContextManager[None]:
    return ray_session(max(usable_cpus(), num_actors * job.cpus_per_actor))


@contextmanager
def actors_prepared(job: SegmentJob, num_scans: int) -> Iterator[list[Any]]:
    """Ray, and the actors of a job, which load the network while the flow looks at the scans; for `segment_scans`.

    Raises:
        PointloomError: Ray does not start, or the cluster does not answer.
    """
    num_actors = min(job.num_actors, num_scans)
    with _ray_session(job, num_actors):
        yield actors_ahead(ScanSegmenter, (job,), num_actors, _ray_options(job, num_actors), SCANS_AT_ONCE)


@stage_task("segment scans")
def segment_scans(collection: Collection, job: SegmentJob, ahead: Sequence[Any] = ()) -> list[ledger.Record]:
    """Label every scan that the plan names; returns the records of all scans, bad ones as quarantined.

    Args:
        collection: with the plan.
        job: with the lock.
        ahead: what `actors_prepared` gave for this job.

    Raises:
        PointloomError: the Ray cluster has no room for an actor, or the checkpoint is not the one of the plan any more.
    """
    logger, notes = get_run_logger(), RepeatedNotes()
    for why in collection.unreached.values():
        logger.warning("%s: %s", UNREACHED, why)
    # Large scans first, so that no actor begins one at the end; a scan without a header takes no time.
    sizes = {scan: header.num_points or 0 for scan, header in collection.headers.items()}
    todo = sorted(collection.plan.todo, key=lambda scan: -sizes.get(scan, 0))
    scans = [collection.to_do(scan) for scan in todo]
    title = f"Scans labelled into {job.out}"
    states = ScanStates(job.out, title, collection.states(), boxes_of(collection.headers), len(todo))

    def tell(record: ledger.Record) -> None:
        _tell(record, logger, notes)

    # What is quarantined already needs no actor.
    bad, sound = [scan for scan in scans if scan.error], [scan for scan in scans if not scan.error]
    set_aside = threads(lambda scan: outcome(STAGE, scan, _no_work, job.keep), 1)
    done = work_through(STAGE, bad, set_aside, states, logger, tell)
    if sound:
        num_actors = min(job.num_actors, len(sound))
        options = _ray_options(job, num_actors)
        with _ray_session(job, num_actors):
            await_room(1, {"CPU": job.cpus_per_actor, "GPU": int(job.gpu)}, job.wait_s)
            worker = actors(
                STAGE, ScanSegmenter, (replace(job, lock=None),), num_actors, options, job.keep, SCANS_AT_ONCE,
                ahead=ahead, ready=(job.lock,),
            )  # fmt: skip
            done |= work_through(STAGE, sound, worker, states, logger, tell)
    notes.sum_up(logger)
    return list((collection.records_before() | done).values())


def _no_work() -> ledger.Record:
    raise AssertionError("a scan with an error is not worked on")


def _tell(record: ledger.Record, logger: Logger, notes: RepeatedNotes) -> None:
    for note in record.details["notes"]:
        notes.say(logger, record.scan, note)
    for sentence in record.details["drift"]:
        logger.warning("%s is unlike what the network was trained on: %s", record.scan, sentence)
    logger.info(
        "%s: %s points in %.1f s, %s points/s",
        record.scan, f"{record.points_in:,}", record.seconds, f"{record.points_in / record.seconds:,.0f}",
    )  # fmt: skip
