"""What one run of `segment` does, as it travels to the actors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pointcloud.delivery.las_copy import output_name
from pointcloud.formats.given_crs import GivenCrs
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labelling.options import LabelOptions
from pointcloud.storage import files, ledger
from pointcloud.storage.lock import Lock

if TYPE_CHECKING:  # finding scans needs STAGE, and no torch
    from models.weights.checkpoint import Checkpoint

STAGE = "segment"
_WAY = "interpolated"  # how voxels label points: clouds labelled another way are labelled again


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentJob:
    """One checkpoint, one place for the labelled clouds, and how the work is shared out.

    Attributes:
        checkpoint: its folder or URI.
        identity: `models.weights.checkpoint.fingerprint` of it when the run was planned: no other is used.
        record: what it says of itself, without weights.
        out: folder or URI of the labelled clouds.
        num_actors: number of actors.
        cpus_per_actor: CPUs of each actor.
        memory_mb, time_limit_s: what decoding a scan may take, see `tasks.runtime.isolation`.
        config: how blocks are cut, as the checkpoint and the options say.
        options: how points are voted on, which may change, what is written.
        quarantine_drift: a scan unlike the training is quarantined, instead of labelled with a warning.
        gpu: each actor has a GPU of its own.
        wait_s: seconds a Ray cluster may take until it has room for an actor.
        given: CRSs and units of scans, in place of what their files say.
        lock: on `out`, of the flow; None while nothing is written.
    """

    checkpoint: str
    identity: str
    record: Checkpoint
    out: str
    num_actors: int
    cpus_per_actor: int
    memory_mb: int
    time_limit_s: float
    config: BlockConfig
    options: LabelOptions
    quarantine_drift: bool = False
    gpu: bool = False
    wait_s: float = 120.0
    given: GivenCrs = field(default_factory=GivenCrs)
    lock: Lock | None = None

    def check_lock(self) -> None:
        """Raises StorageError when another run may write to `out`; called before anything is written there."""
        if self.lock is not None:
            self.lock.check()

    def keep(self, record: ledger.Record) -> None:
        """Put a record into the ledger. Raises StorageError, as when another run may write to `out`."""
        self.check_lock()
        ledger.write(self.out, record)

    def key(self, content: str, neighbours: Sequence[tuple[str, str]]) -> str:
        """Hash of all that a labelled cloud depends on: a scan's `storage.fingerprint`, its neighbours' by name."""
        return ledger.key_of(
            STAGE,
            _WAY,
            content,
            list(neighbours),
            self.identity,
            self.options.to_dict(),
            self.quarantine_drift,
        )

    @property
    def warning(self) -> str:
        """A sentence on a checkpoint whose training has not finished; empty for one that has."""
        if not self.record.unfinished:
            return ""
        epoch, miou = (self.record.metrics.get(name) for name in ("epoch", "val_miou"))
        score = "" if miou is None else f", validation mIoU {miou:.3f}"
        return (
            f"checkpoint {self.checkpoint!r} is unfinished: {self.record.unfinished} (best epoch so far: "
            f"{epoch}{score}); when it has, scans labelled now will be labelled again."
        )

    @property
    def settings(self) -> str:
        """Hash of what the points/s of an actor depend on, besides the machine."""
        return ledger.key_of(self.identity, self.options.to_dict(), self.cpus_per_actor, self.gpu)

    def output_path(self, scan: str) -> str:
        """The path of a scan's labelled cloud below `out`."""
        return output_name(scan, self.options.format)

    def output(self, scan: str) -> str:
        """The URI of a scan's labelled cloud."""
        return files.join(self.out, *self.output_path(scan).split("/"))

    def tiles(self, scan: str) -> str:
        """The file of a scan's tiles with their confidence."""
        return files.join(self.out, "tiles", f"{scan}.parquet")
