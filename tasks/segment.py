"""Scans to labelled clouds: one Prefect task holds the driver, Ray Data hands scans to actors that keep the network.

The actors read and write the files themselves; what comes back is one small record per scan.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import ray.data
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from models.checkpoint import fingerprint, read_checkpoint
from pointcloud import ledger, storage
from pointcloud.errors import PointloomError
from pointcloud.header import ScanHeader
from pointcloud.label_options import LabelOptions
from pointcloud.labelled import fits, output_name
from pointcloud.neighbours import find_neighbours
from pointcloud.point_formats import LAST_SHORT_CODE
from pointcloud.scan import SUFFIXES
from tasks.capacity import await_room
from tasks.cluster import ray_session, usable_cpus
from tasks.examining import examine_all
from tasks.isolation import HEAP, IsolatedProcesses
from tasks.segmenter import STAGE, ScanSegmenter, SegmentJob
from tasks.survey_map import UNCHANGED, UNREACHED, WAITING, boxes_of
from tasks.watching import ScanStates

_UNREACHED_IN_A_ROW = 5
"""So many scans that storage does not give or take, and the run ends: it is the storage, or a full disk."""
_NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
"""Several actors that asked for no GPU of their own would share the first."""


@dataclass(frozen=True)
class Collection:
    """The scans of one run, looked at from outside.

    Attributes:
        sources, keys: by name; a key holds everything that a labelled cloud depends on.
        headers: of those that have one.
        neighbours: scan -> scans whose points its tiles and halos may reach.
        records: what the ledger knows.
        plan: what is to do.
        unreached: scans that storage does not give, and why; they are not in `keys`.
    """

    sources: dict[str, storage.Source]
    keys: dict[str, str]
    headers: dict[str, ScanHeader]
    neighbours: dict[str, list[str]]
    records: dict[str, ledger.Record]
    plan: ledger.Plan
    unreached: dict[str, str] = field(default_factory=dict)

    def row(self, scan: str) -> dict[str, str]:
        """What an actor is told of a scan."""
        beside = {other: self.sources[other].uri for other in self.neighbours.get(scan, [])}
        return {
            "uri": self.sources[scan].uri,
            "name": scan,
            "key": self.keys[scan],
            "neighbours": json.dumps(beside),
        }

    def states(self) -> dict[str, str]:
        """Scan -> its state before anything is done."""
        todo, states = set(self.plan.todo), dict.fromkeys(self.unreached, UNREACHED)
        for scan in self.keys:
            record = None if scan in todo else self.records.get(scan)
            states[scan] = (
                WAITING if record is None else UNCHANGED if record.state == ledger.DONE else record.state
            )
        return states

    def estimate(self, num_actors: int) -> str:
        """One sentence: how long the plan takes, going by the points/s that the ledger has measured."""
        headers = [self.headers[scan] for scan in self.plan.todo if scan in self.headers]
        sizes = [header.num_points for header in headers if header.num_points]
        what = f"{sum(sizes):,} points in {len(sizes)} scans to label"
        measured = [r for r in self.records.values() if r.state == ledger.DONE and r.points_in and r.seconds]
        if not sizes:
            return f"{what}."
        if not measured:
            return f"{what}; no estimate of time, because no labelled scan is there yet to measure from."
        rate = sum(r.points_in for r in measured) / sum(r.seconds for r in measured)
        # However many actors there are, one of them has the largest scan to itself.
        seconds = max(sum(sizes) / min(num_actors, len(sizes)), max(sizes)) / rate
        return (
            f"{what}: about {_duration(seconds)} with {num_actors} actors, at {rate:,.0f} points/s each as measured on "
            f"{len(measured)} scans here, whatever their settings were; start-up comes on top."
        )


def foresee(collection: Collection, job: SegmentJob) -> str:
    """What the headers tell of scans that cannot be labelled with these codes, a sentence; empty when all can."""
    scheme = job.options.scheme(read_checkpoint(job.checkpoint, weights=False).label_scheme)
    headers = [collection.headers[scan] for scan in collection.plan.todo if scan in collection.headers]
    small = [header.uri for header in headers if not fits(header.dimensions, scheme, job.options)]
    if not small:
        return ""
    largest = max(label.code for label in scheme.classes)
    return (
        f"{len(small)} scans, such as {small[0]!r}, will be quarantined: their point formats end at class code "
        f"{LAST_SHORT_CODE} and the largest to write is {largest}; ask for upgrade_format, or other codes."
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def find_scans(
    patterns: list[str], out: str, format: str = "same", report: Callable[[str], None] = lambda _: None
) -> list[storage.Source]:
    """The LAS and LAZ files that paths, folders and globs mean, but those of an out folder within such a folder.

    Args:
        report: is told in one sentence what is left out.

    Raises:
        StorageError: nothing there, or two scans with one name.
        PointloomError: the labelled clouds would overwrite their scans, or each other, or are all there is.
    """
    found, outputs = storage.expand(patterns, SUFFIXES), dict[str, storage.Source]()
    sources = [source for source in found if not _is_within(source, out)]
    if not sources:
        raise PointloomError(
            f"all {len(found)} scans found lie in the out folder {out!r}; give the folder of the scans, or another out "
            "folder."
        )
    if len(sources) < len(found):
        report(
            f"{len(found) - len(sources)} files below the out folder {out!r} are left out: they are labelled clouds, "
            "no scans."
        )
    for source in sources:
        name = output_name(source.name, format)
        other = outputs.setdefault(name, source)
        if other is not source:
            raise PointloomError(
                f"{other.uri!r} and {source.uri!r} would both become {name!r}; label them into two folders."
            )
        if storage.same(source.uri, storage.join(out, name)):
            raise PointloomError(
                f"the labelled cloud would overwrite its scan {source.uri!r}; give another out folder."
            )
    return sources


def _is_within(source: storage.Source, out: str) -> bool:
    """Whether a source lies in the out folder, and was found by looking into a folder above that."""
    (filesystem, path), (other, folder) = storage.resolve(source.uri), storage.resolve(out)
    if storage.is_local(out):
        path, folder = os.path.realpath(path), os.path.realpath(folder)
    inside = path.removeprefix(f"{folder.rstrip('/')}/")
    return filesystem == other and inside != path and len(source.name) > len(inside)


def choose(sources: Sequence[storage.Source], only: Sequence[str]) -> list[str]:
    """The names of the scans that names and globs mean, a `*` being also a slash; all where there are none.

    Raises:
        PointloomError: no scan is called like one of them.
    """
    names = [source.name for source in sources]
    if not only:
        return names
    chosen: set[str] = set()
    for pattern in only:
        meant = {name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)}
        if not meant:
            raise PointloomError(
                f"only names {pattern!r}, and none of the {len(names)} scans, such as {names[0]!r}, is called like "
                "that; give names or globs of scans as the ledger has them."
            )
        chosen |= meant
    return sorted(chosen)


def plan_segmenting(
    checkpoint: str, out: str, options: LabelOptions, num_actors: int, cpus_per_actor: int, memory_mb: int,
    time_limit_s: float, quarantine_drift: bool = False, gpu: bool = False, wait_s: float = 120.0,
) -> SegmentJob:  # fmt: skip
    """A job whose checkpoint is there and readable; 0 CPUs per actor shares out what this machine has.

    Raises:
        StorageError, SchemaError: no checkpoint there, or of another schema.
        PointloomError: options that do not fit the checkpoint's tiles or classes.
    """
    record = read_checkpoint(checkpoint, weights=False)
    options.scheme(record.label_scheme)
    config = record.block_config
    if options.overlap is not None:
        config = replace(config, overlap=options.overlap)
    cpus = cpus_per_actor or max(1, usable_cpus() // num_actors)
    return SegmentJob(
        checkpoint, fingerprint(checkpoint), out, num_actors, cpus, memory_mb, time_limit_s, config, options,
        quarantine_drift, gpu, wait_s,
    )  # fmt: skip


@task(name="examine scans", cache_policy=NO_CACHE)
def examine_collection(
    sources: list[storage.Source], job: SegmentJob, processes: IsolatedProcesses, num_readers: int,
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
    examined = examine_all(sources, processes, num_readers, unreached)
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
            {scan: key for scan, key in keys.items() if scan in chosen}, here, retry_quarantined or bool(only)
        ),
        unreached=unreached,
    )


@task(name="segment scans", cache_policy=NO_CACHE)
def segment_scans(collection: Collection, job: SegmentJob) -> list[ledger.Record]:
    """Label every scan that the plan names; the record of each scan there is, bad ones quarantined.

    Where several scans in a row cannot be reached or written the rest is left, without records.

    Raises:
        PointloomError: the Ray cluster has no room for an actor.
    """
    logger = get_run_logger()
    keys, todo = collection.keys, list(collection.plan.todo)
    records = {scan: record for scan, record in collection.records.items() if scan in keys}
    for scan, why in collection.unreached.items():
        records[scan] = ledger.Record(STAGE, scan, "", UNREACHED, error=why)
        logger.warning("%s: %s", UNREACHED, why)
    states = ScanStates(
        job.out,
        f"Scans labelled into {job.out}",
        collection.states(),
        boxes_of(collection.headers),
        len(todo),
    )
    if not todo:
        return list(records.values())
    # Large scans first, so that no actor is left with one at the end; what has no header is soon over.
    sizes = {scan: header.num_points or 0 for scan, header in collection.headers.items()}
    todo.sort(key=lambda scan: -sizes.get(scan, 0))
    num_actors, unreached = min(job.num_actors, len(todo)), 0
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
            records[record.scan] = record
            states.set(record.scan, record.state, record)
            unreached = unreached + 1 if record.state == UNREACHED else 0
            if record.state != ledger.DONE:
                logger.warning("%s: %s", record.state, record.error)
                if "traceback" in record.details:
                    logger.warning("%s", record.details["traceback"])
                if unreached >= _UNREACHED_IN_A_ROW:
                    logger.error(
                        "%s scans in a row ended like this: the rest is left, what is done is kept", unreached
                    )
                    break
            else:
                for sentence in record.details["drift"]:
                    logger.warning("%s is unlike what the network was trained on: %s", record.scan, sentence)
                rate = record.points_in / record.seconds
                logger.info("%s: %s points in %.1f s, %s points/s", record.scan, f"{record.points_in:,}",
                            record.seconds, f"{rate:,.0f}")  # fmt: skip
    states.show()
    return list(records.values())
