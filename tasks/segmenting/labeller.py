"""From the file of a scan to its labelled cloud; used by the actors and by the estimate, which measures a sample."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyproj import CRS

from models.predictor import Predictor, Stopwatch
from models.weights.checkpoint import read_checkpoint
from pointcloud.blocks.block import Block
from pointcloud.blocks.decoded import DecodedScan
from pointcloud.blocks.features import FEATURES
from pointcloud.crs import metres_per_unit
from pointcloud.delivery.deliver import decode_beside, decode_for_labels, write_labels
from pointcloud.delivery.las_copy import output_name
from pointcloud.errors import PointloomError, ScanError
from pointcloud.formats.columns import RETURNS
from pointcloud.formats.reader import SINGLE_RETURNS
from pointcloud.labelling.label_points import Predict, ShowVoxels, label_points
from pointcloud.labelling.measures import summarise
from pointcloud.quality.doubtful_tiles import TileDoubts
from pointcloud.quality.drift import Sampler, unlike_tiles
from tasks.collection.plan import ScanToDo
from tasks.runtime.isolation import IsolatedProcesses
from tasks.segmenting.job import SegmentJob
from tasks.segmenting.rehearsal import write_scan

_IMPORT_SECONDS = 30.0  # to wait for what takes one or two; the first scan waits for the rest


class ScanLabeller:
    """Keeps the network of a job; decodes scans, labels their points and writes their labelled clouds.

    The network runs in this process, decoding and writing in others, where a decoder may crash. Several threads may
    use it, a scan each.

    Args:
        job: its checkpoint is read here, and must still be the one that the job was planned with.
        num_scans: largest number of scans that are worked on at once.
        device: where the network runs; None: a GPU where there is one.

    Attributes:
        scheme: the classes and the codes that are written.
        predictor: the network.

    Raises:
        StorageError: the checkpoint cannot be read.
        SchemaError: it is another one by now.
    """

    def __init__(self, job: SegmentJob, num_scans: int = 1, device: torch.device | None = None) -> None:
        self._job = job
        self._isolated = IsolatedProcesses(num_scans, job.memory_mb, job.time_limit_s)
        importing = self._isolated.prepare(decode_for_labels.__module__)
        try:
            checkpoint = read_checkpoint(job.checkpoint, expect=job.identity)
            self.scheme = job.options.scheme(checkpoint.label_scheme)
            self.predictor = Predictor(
                replace(checkpoint, block_config=job.config),
                job.options.rotations,
                job.options.smoothing,
                device,
            )
        except BaseException:
            self.close()
            raise
        self.predictor.warm_up()
        importing.join(_IMPORT_SECONDS)

    @property
    def limit(self) -> float | None:
        """The mean distance of a tile from which it is unlike the training; None where it is not known."""
        familiarity = self.predictor.checkpoint.familiarity
        return None if familiarity is None else familiarity.limit

    def close(self) -> None:
        """End the process that decodes."""
        self._isolated.close()

    def decode(self, scan: ScanToDo, folder: Path) -> tuple[DecodedScan, list[DecodedScan]]:
        """A scan and its neighbours, decoded into a local folder.

        Raises:
            ScanError, StorageError: the scan cannot be read, or not be reached.
        """
        config, neighbours = self._job.config, []
        instead = {name: CRS.from_json(text) for name, text in scan.crs.items()}
        decoded: DecodedScan = self._isolated.call(
            decode_for_labels, scan.name, scan.uri, folder / "scan.arrow", config, self.scheme, self._job.options,
            instead.get(scan.name),
        )  # fmt: skip
        for number, (other, at) in enumerate(sorted(scan.neighbours.items())):
            # A neighbour that cannot be read, or has no point near enough, gives no context; its own record says why.
            with suppress(ScanError):
                neighbours.append(
                    self._isolated.call(
                        decode_beside,
                        other,
                        at,
                        folder / f"{number}.arrow",
                        config,
                        decoded,
                        instead.get(other),
                    )
                )
        return decoded, neighbours

    def assumed(self, decoded: DecodedScan) -> list[str]:
        """Sentences on attributes that a scan lacks and that are assumed for the network."""
        needed = {name for feature in self.predictor.checkpoint.features for name in FEATURES[feature][0]}
        if (
            needed.isdisjoint(RETURNS)
            or not decoded.single_returns
            or any(note.endswith(SINGLE_RETURNS) for note in decoded.notes)
        ):
            return []
        return [f"it has no return numbers, which the network uses: {SINGLE_RETURNS}"]

    def logits(
        self,
        sampler: Sampler,
        blocks: Iterable[Block],
        doubts: TileDoubts | None = None,
        watch: Stopwatch | None = None,
    ) -> Iterator[tuple[Block, np.ndarray]]:
        """Each block with its (N, C) logits.

        The sampler looks at the blocks on their way, and the doubts at how far they are from the training.
        """

        def looked_at() -> Iterator[Block]:
            for block in blocks:
                sampler.add(block)
                yield block

        look = None if doubts is None else doubts.add_distances
        yield from self.predictor.logits(looked_at(), look, watch)

    def label(
        self,
        decoded: DecodedScan,
        neighbours: list[DecodedScan],
        predict: Predict,
        folder: Path,
        show_voxels: ShowVoxels = lambda *_: None,
    ) -> dict[str, np.ndarray]:
        """What is written of every point, see `pointcloud.labelling.label_points`, in files of the folder.

        Raises:
            ScanError: the scan lacks an attribute that the network needs, or cannot be cut into blocks.
        """
        found = partial(summarise, options=self._job.options)
        return label_points(decoded, neighbours, self._job.config, predict, found, show_voxels, folder)

    def write(self, uri: str, output: str, folder: Path) -> tuple[np.ndarray, Any]:
        """Write the labelled cloud of what `label` left in the folder; points by class code, and the proof.

        Raises:
            ScanError: the labelled cloud is not the scan, or cannot hold the codes.
            StorageError: it cannot be written.
        """
        codes, proof = self._isolated.call(write_labels, uri, output, folder, self.scheme, self._job.options)
        return codes, proof

    def looks(self, sampler: Sampler, decoded: DecodedScan, doubts: TileDoubts) -> dict[str, Any]:
        """What a scan looks like and how it is unlike the training, for its record."""
        checkpoint = self.predictor.checkpoint
        thinning = {decoded.scan: decoded.num_points / max(sampler.num_kept, 1)}
        seen, drift = sampler.seen(thinning), []
        if checkpoint.seen is not None:
            units = metres_per_unit(decoded.crs)
            drift = sampler.drift(checkpoint.seen, checkpoint.features, thinning, units)
        drift += unlike_tiles(doubts.share_unlike)
        return {"seen": None if seen is None else seen.to_dict(), "drift": drift}

    def rehearse(self) -> None:
        """Label a small scan and discard it, so that loading on first use does not count in the time of the first scan.

        An error, as on a full disk, is left to the first scan to report.
        """
        with (
            suppress(PointloomError, OSError),
            tempfile.TemporaryDirectory(prefix="pointloom-rehearsal-") as name,
        ):
            folder = Path(name)
            scan = write_scan(folder)
            decoded, _ = self.decode(ScanToDo(name=scan.name, uri=str(scan), key=""), folder)
            self.label(decoded, [], self.predictor.logits, folder)
            output = folder / "labelled" / output_name(scan.name, self._job.options.format)
            self.write(str(scan), str(output), folder)
