"""Scans to labelled clouds: one Prefect task holds the driver, Ray Data hands scans to actors that keep the network.

The actors read and write the files themselves; what comes back is one small record per scan.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import ray.data
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from models.weights.checkpoint import fingerprint, read_checkpoint
from pointcloud.blocks.neighbours import find_neighbours
from pointcloud.dataset.preprocessing import agree_on_crs
from pointcloud.delivery.las_copy import fits
from pointcloud.errors import PointloomError
from pointcloud.formats.given_crs import GivenCrs
from pointcloud.formats.las_point_formats import LAST_SHORT_CODE
from pointcloud.labelling.options import UNCLASSIFIED, LabelOptions
from pointcloud.labels import LabelScheme
from pointcloud.storage import inputs, ledger
from pointcloud.storage.ledger import UNREACHED
from tasks.prefect_ui.scan_states import ScanStates
from tasks.prefect_ui.survey_map import boxes_of
from tasks.report.figures import counted
from tasks.runtime.cluster import await_room, ray_session, usable_cpus
from tasks.runtime.examining import examine_all
from tasks.runtime.isolation import HEAP, IsolatedProcesses
from tasks.runtime.outage import UNREACHED_IN_A_ROW, Outage
from tasks.segmenting.actor import CANNOT_BEGIN, ScanSegmenter
from tasks.segmenting.collection import Collection, choose
from tasks.segmenting.job import STAGE, SegmentJob

_Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]
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
    """What the headers tell of scans that cannot be labelled with these codes, a sentence; empty when all can."""
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


@task(name="examine scans", cache_policy=NO_CACHE)
def examine_collection(
    sources: list[inputs.Source], job: SegmentJob, processes: IsolatedProcesses, num_readers: int,
    retry_quarantined: bool = True, only: Sequence[str] = (),
) -> Collection:  # fmt: skip
    """Headers and contents of all scans, and what the ledger says is to do.

    Args:
        only: names or globs of the scans that are worked on, quarantined ones too; none: all of them. The others
            stay what they are, and neighbours.

    Raises:
        StorageError: the ledger cannot be reached.
        PointloomError: `only` names what is not there.
    """
    chosen, unreached = set(choose(sources, only)), dict[str, str]()
    examined = examine_all(sources, processes, num_readers, unreached, job.given)
    examined, remarks = agree_on_crs(examined, job.config)
    headers = {scan: one.header for scan, one in examined.items() if one.header is not None}
    neighbours = find_neighbours(headers, job.config)
    keys = {
        scan: job.key(one.fingerprint, [(n, examined[n].fingerprint) for n in neighbours.get(scan, [])])
        for scan, one in examined.items()
    }
    records = {
        scan: record for scan, record in ledger.read_all(job.out, STAGE).items() if scan not in unreached
    }
    here = records if not only else {scan: record for scan, record in records.items() if scan in chosen}
    return Collection(
        sources={source.name: source for source in sources},
        keys=keys,
        headers=headers,
        neighbours=neighbours,
        records=records,
        plan=ledger.plan(
            job.out,
            {scan: key for scan, key in keys.items() if scan in chosen},
            here,
            retry_quarantined or bool(only),
        ),
        unreached=unreached,
        crs={scan: one.crs for scan, one in examined.items() if one.crs is not None},
        remarks=tuple(remarks),
    )


@task(name="segment scans", cache_policy=NO_CACHE)
def segment_scans(collection: Collection, job: SegmentJob) -> list[ledger.Record]:
    """Label every scan that the plan names; the record of each scan there is, bad ones quarantined.

    Where several scans in a row cannot be reached or written the rest is left, without records.

    Raises:
        PointloomError: the Ray cluster has no room for an actor, or the checkpoint is not the one of the plan any more.
    """
    logger = get_run_logger()
    keys, todo = collection.keys, list(collection.plan.todo)
    records = {scan: record for scan, record in collection.records.items() if scan in keys}
    for scan, why in collection.unreached.items():
        records[scan] = ledger.Record(stage=STAGE, scan=scan, key="", state=UNREACHED, error=why)
        logger.warning("%s: %s", UNREACHED, why)
    states = ScanStates(
        job.out,
        f"Scans labelled into {job.out}",
        collection.states(),
        boxes_of(collection.headers),
        len(todo),
    )
    for record in _set_aside(collection, job):
        records[record.scan] = record
        states.set(record.scan, record.state, record)
        _log(record, logger)
        todo.remove(record.scan)
    if not todo:
        return list(records.values())
    # Large scans first, so that no actor is left with one at the end; what has no header is soon over.
    sizes = {scan: header.num_points or 0 for scan, header in collection.headers.items()}
    todo.sort(key=lambda scan: -sizes.get(scan, 0))
    num_actors, outage = min(job.num_actors, len(todo)), Outage()
    with ray_session(max(usable_cpus(), num_actors * job.cpus_per_actor)):
        await_room(1, {"CPU": job.cpus_per_actor, "GPU": int(job.gpu)}, job.wait_s)
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = ray.data.from_items(
            [collection.row(scan) for scan in todo],
            override_num_blocks=len(todo),
        ).map_batches(
            ScanSegmenter,
            fn_constructor_args=(job,),
            batch_size=1,
            # One at a time: a second would wait behind a large scan while another actor is idle.
            compute=ray.data.ActorPoolStrategy(size=num_actors, max_tasks_in_flight_per_actor=1),
            num_cpus=job.cpus_per_actor,
            num_gpus=int(job.gpu),
            # The session's own thresholds spare memory in training; giving each tensor back costs the network 7 %.
            runtime_env={"env_vars": HEAP if job.gpu or num_actors == 1 else HEAP | _NO_GPU},
        )
        for row in rows.iter_rows():
            record = ledger.Record(**row["record"])
            if record.state == CANNOT_BEGIN:
                raise PointloomError(record.error)
            records[record.scan] = record
            states.set(record.scan, record.state, record)
            outage.note(record.state == UNREACHED)
            _log(record, logger)
            if outage.ends_the_run:
                logger.error(
                    "%s scans in a row ended like this: the rest is left, what is done is kept",
                    UNREACHED_IN_A_ROW,
                )
                break
    states.show()
    return list(records.values())


def _set_aside(collection: Collection, job: SegmentJob) -> list[ledger.Record]:
    """Quarantine the scans to do whose names no output can bear; their records, which are written."""
    faults = {scan: collection.sources[scan].fault for scan in collection.plan.todo}
    records = [
        ledger.Record(
            stage=STAGE, scan=scan, key=collection.keys[scan], state=ledger.QUARANTINED, error=fault
        )
        for scan, fault in faults.items()
        if fault
    ]
    for record in records:
        ledger.write(job.out, record)
    return records


def _log(record: ledger.Record, logger: _Logger) -> None:
    if record.state != ledger.DONE:
        logger.warning("%s: %s", record.state, record.error)
        if "traceback" in record.details:
            logger.warning("%s", record.details["traceback"])
        return
    for note in record.details["notes"]:
        logger.info("%s: %s", record.scan, note)
    for sentence in record.details["drift"]:
        logger.warning("%s is unlike what the network was trained on: %s", record.scan, sentence)
    logger.info(
        "%s: %s points in %.1f s, %s points/s",
        record.scan, f"{record.points_in:,}", record.seconds, f"{record.points_in / record.seconds:,.0f}",
    )  # fmt: skip
