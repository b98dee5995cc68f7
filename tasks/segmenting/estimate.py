"""How long labelling will take: from the records of scans labelled before, or from labelling a sample."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from prefect import get_run_logger

from pointcloud.blocks.block import Block
from pointcloud.blocks.decoded import DecodedScan
from pointcloud.errors import PointloomError
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.grid import Grid
from pointcloud.quality.drift import Sampler
from pointcloud.storage import ledger
from tasks.collection.plan import Collection, ScanToDo
from tasks.report.figures import counted
from tasks.runtime.isolation import scratch_sentence
from tasks.runtime.stage import stage_task
from tasks.segmenting.job import SegmentJob

if TYPE_CHECKING:
    from tasks.segmenting.labeller import ScanLabeller

_SAMPLE_SECONDS = 20.0
_SAMPLES = 3  # scans that are tried
_ENOUGH_POINTS = 50_000  # with fewer, the fixed cost of a scan is most of the time measured


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What was measured on one scan.

    Attributes:
        scan: its name.
        points: labelled, those of whole blocks.
        seconds: that they took, with their share of decoding, without writing and start-up.
        device: "CPUs" or "GPU" of this machine.
    """

    scan: str
    points: float
    seconds: float
    device: str


def estimate(collection: Collection, job: SegmentJob, may_sample: bool = False) -> str:
    """One sentence: how long the plan takes.

    Args:
        may_sample: where no scan has been labelled with this checkpoint and these settings, label some blocks of one
            in this process, for about 20 s; nothing of it is kept.
    """
    sizes = _sizes(collection)
    what = f"{sum(sizes.values()):,} points in {counted(len(sizes), 'scan', 'scans')} to label"
    unknown = sum(collection.headers[scan].num_points is None for scan in _readable(collection))
    if unknown:  # rooms
        header = "whose header tells" if unknown == 1 else "whose headers tell"
        what += f", and {counted(unknown, 'scan', 'scans')} {header} no number of points and which no estimate counts"
    if not sizes:
        return f"{what}."
    measured = [
        record
        for record in collection.records.values()
        if record.state == ledger.DONE and record.points_in and record.seconds
        and record.details.get("settings") == job.settings
    ]  # fmt: skip
    if measured:
        rate = sum(record.points_in for record in measured) / sum(record.seconds for record in measured)
        return (
            f"{what}: {_how_long(list(sizes.values()), rate, job)} as measured on "
            f"{counted(len(measured), 'scan', 'scans')} here; start-up comes on top."
        )
    none = f"{what}; no estimate of time, because"
    if not may_sample:
        return f"{none} no scan is labelled yet with this checkpoint and these settings."
    sample = measure_sample(collection, job)
    if isinstance(sample, str):
        return f"{none} no sample could be measured: {sample}"
    gpus = ", while the actors will have GPUs" if job.gpu and sample.device != "GPU" else ""
    return (
        f"{what}: {_how_long(list(sizes.values()), sample.points / sample.seconds, job)} as measured on this machine's "
        f"{sample.device} on a sample of {sample.points:,.0f} points of {sample.scan!r}{gpus}; writing and start-up "
        "come on top."
    )


@stage_task("measure a sample")
def measure_sample(collection: Collection, job: SegmentJob) -> Sample | str:
    """Label blocks of a scan that is to do, as an actor would; of at most three, the first that can be labelled.

    Returns why there is no sample, a sentence, where there is none.
    """
    import torch  # imported here, because only this stage runs the network in the process of the flow

    from tasks.segmenting.labeller import ScanLabeller

    logger, threads, sizes = get_run_logger(), torch.get_num_threads(), _sizes(collection)
    # The smallest scan that is large enough for a measurement; if all are smaller, the largest.
    order = sorted(sizes, key=lambda scan: (sizes[scan] < _ENOUGH_POINTS, abs(sizes[scan] - _ENOUGH_POINTS)))
    why = "no scan has a header that tells its points."
    logger.info("No scan is labelled yet with this checkpoint and these settings: a sample is measured.")
    try:
        torch.set_num_threads(job.cpus_per_actor)
        # Several actors without GPUs of their own see none.
        device = torch.device("cpu") if job.num_actors > 1 and not job.gpu else None
        with closing(ScanLabeller(job, device=device)) as labeller:
            labeller.rehearse()
            for scan in order[:_SAMPLES]:
                try:
                    return _measure(labeller, collection.to_do(scan), job.config)
                except PointloomError as error:
                    why = str(error) if scan in str(error) else f"scan {scan!r}: {error}"
                logger.warning("No sample: %s", why)
    except PointloomError as error:
        why = str(error)
    except OSError as error:
        why = scratch_sentence(error)
    except (RuntimeError, MemoryError) as error:  # torch's error for too little memory
        reason = " ".join(str(error).split()).rstrip(".")
        why = f"labelling it failed unexpectedly ({type(error).__name__}: {reason})."
    finally:
        torch.set_num_threads(threads)
    return why


def _sizes(collection: Collection) -> dict[str, int]:
    """Scan -> points by its header, of those to do."""
    headers = {scan: collection.headers[scan] for scan in _readable(collection)}
    return {scan: header.num_points for scan, header in headers.items() if header.num_points}


def _readable(collection: Collection) -> list[str]:
    """The scans to do that have a header."""
    return [scan for scan in collection.plan.todo if scan in collection.headers]


def _how_long(sizes: list[int], rate: float, job: SegmentJob) -> str:
    # However many actors there are, one of them has the largest scan to itself.
    seconds = max(sum(sizes) / min(job.num_actors, len(sizes)), max(sizes)) / rate
    actors = counted(job.num_actors, "actor", "actors")
    return f"about {_duration(seconds)} with {actors}, at {rate:,.0f} points/s each"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Enough(Exception):
    """Raised when the measurement has taken long enough."""


def _measure(labeller: ScanLabeller, sample: ScanToDo, config: BlockConfig) -> Sample:
    """What labelling some blocks of a scan took, at least one of the network's batches.

    Raises:
        ScanError, StorageError: the scan cannot be read or labelled.
        OSError: no room for its points on this machine's disk.
    """
    sampler, labelled = Sampler(config.tile_size_m), 0.0
    with tempfile.TemporaryDirectory(prefix="pointloom-sample-") as name:
        folder, began = Path(name), time.monotonic()
        scan, beside = labeller.decode(sample, folder)
        decoded = time.monotonic()

        def until_enough(blocks: Iterable[Block]) -> Iterator[Block]:
            for block in blocks:
                if labelled and time.monotonic() - decoded > _SAMPLE_SECONDS:
                    raise _Enough
                yield block

        def predict(blocks: Iterable[Block]) -> Iterator[tuple[Block, np.ndarray]]:
            nonlocal labelled
            for block, logits in labeller.logits(sampler, until_enough(blocks)):
                labelled += _points_of(block, scan, config)
                yield block, logits

        try:
            labeller.label(scan, beside, predict, folder)
            labelled = scan.num_points
        except _Enough:
            pass
        ended = time.monotonic()
    share = min(1.0, labelled / scan.num_points)
    device = "GPU" if labeller.predictor.device.type == "cuda" else "CPUs"
    return Sample(
        scan=sample.name,
        points=labelled,
        seconds=ended - decoded + share * (decoded - began),
        device=device,
    )


def _points_of(block: Block, decoded: DecodedScan, config: BlockConfig) -> float:
    """Points of a scan in a block's core, each divided among the shifted grids; in a quarter of a tile by its area."""
    grid = Grid.of(config, decoded.crs)
    low = np.array(block.tile) * grid.tile_cells + block.shift
    within = (decoded.cells[:, :2] >= low) & (decoded.cells[:, :2] < low + grid.tile_cells)
    tile = grid.tile_cells * grid.cell_voxels * grid.voxel_size[0]
    x_min, y_min, x_max, y_max = block.cell
    area = (x_max - x_min) * (y_max - y_min) / tile**2
    return float(decoded.cell_points[within.all(axis=1)].sum()) * area / config.overlap**2
