"""What is done to one scan: decode it, then cut its tiles into a shard. Neither needs a scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointcloud.blocks.decoded import DecodedScan, decode_scan
from pointcloud.blocks.features import FEATURES
from pointcloud.cloud import ScanHeader
from pointcloud.dataset.cutting import plan_cutting
from pointcloud.dataset.shard import ShardSums, write_shard
from pointcloud.dataset.splits import SplitRule
from pointcloud.errors import ScanError
from pointcloud.formats.las_raw import waveform_file
from pointcloud.formats.reader import Window, read_header
from pointcloud.formats.s3dis import is_room, object_files
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labels import LabelScheme
from pointcloud.storage import files as storage
from pointcloud.storage import ledger


@dataclass(frozen=True)
class Recipe:
    """How every scan of a dataset is made into blocks.

    Attributes:
        config, scheme, rule: sizes, classes, splits.
        required: features that each scan must be able to give.
        sample_points: draw every block to exactly this many points, as the paper does with 4096; 0: all points.
        min_points: tiles with fewer are left out.
        window: x_min, y_min, x_max, y_max in CRS units; only points inside, half-open. None: all points.
    """

    config: BlockConfig
    scheme: LabelScheme
    rule: SplitRule
    required: tuple[str, ...] = ()
    sample_points: int = 0
    min_points: int = 1
    window: Window | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "config": self.config.to_dict(),
            "scheme": self.scheme.to_dict(),
            "rule": self.rule.to_dict(),
            "required": list(self.required),
            "sample_points": self.sample_points,
            "min_points": self.min_points,
            "window": None if self.window is None else list(self.window),
        }


@dataclass(frozen=True)
class Examined:
    """A scan before its points are decoded: what tells its content apart, and its header or why it has none."""

    fingerprint: str
    header: ScanHeader | None
    error: str = ""


def examine(source: storage.Source) -> Examined:
    """Look at a scan from outside. Raises StorageError where it cannot be reached."""
    fingerprint = fingerprint_of(source.uri)
    try:
        header = read_header(source.uri)
    except ScanError as error:
        return Examined(fingerprint, None, str(error))
    if "wavepacket_index" in header.dimensions:
        # The labelled cloud brings along the packets beside the scan: when they change, it must be made again.
        packets = waveform_file(source.uri)
        if storage.exists(packets):
            fingerprint = ledger.key_of(fingerprint, storage.fingerprint(packets))
    return Examined(fingerprint, header)


def fingerprint_of(uri: str) -> str:
    """What tells one content of a scan from another. Raises StorageError where it cannot be reached."""
    if not is_room(uri):
        return storage.fingerprint(uri)
    # A room is a folder: its objects together are its content.
    try:
        files = object_files(uri)
    except ScanError:  # none, as whoever reads it will say
        files = []
    return ledger.key_of([(file.name, storage.fingerprint(file.uri)) for file in files])


def read_scan(source: storage.Source, recipe: Recipe, folder: Path) -> DecodedScan:
    """Decode a scan into an Arrow file in a local folder.

    Raises:
        ScanError: it cannot be read, or lacks what a required feature needs.
        StorageError: it cannot be reached.
    """
    path = folder / f"{ledger.key_of(source.name)}.arrow"
    try:
        decoded = decode_scan(source.name, source.uri, path, recipe.config, recipe.window)
        missing = {
            name: feature for feature in recipe.required for name in FEATURES[feature][0]
            if name not in decoded.attributes
        }  # fmt: skip
        if missing:
            raise ScanError(
                f"scan {source.uri!r} has no {', '.join(missing)}, which the required feature "
                f"{' and '.join(dict.fromkeys(missing.values()))} needs; leave the scan out or do not require it."
            )
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return decoded


def cut_scan(decoded: DecodedScan, neighbours: Sequence[DecodedScan], recipe: Recipe, uri: str) -> ShardSums:
    """Cut a scan's own tiles, with what its neighbours have in and around them, into the shard `uri`.

    Raises:
        ScanError: points that no cut can part.
        StorageError: `uri` cannot be written.
    """
    cutting = plan_cutting(decoded, neighbours, recipe.config, recipe.scheme, recipe.rule)
    return write_shard(uri, cutting, decoded.crs, recipe.sample_points, recipe.min_points)
