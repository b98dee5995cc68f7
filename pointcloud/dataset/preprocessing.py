"""What is done to one scan: decode it, then cut its tiles into a shard. Neither needs a scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pyproj import CRS

from pointcloud.blocks.common_crs import adopt_crs, kept_apart, listed
from pointcloud.blocks.decoded import DecodedScan, decode_scan
from pointcloud.blocks.features import FEATURES
from pointcloud.cloud import ScanHeader
from pointcloud.crs import metres_per_unit
from pointcloud.dataset.cutting import plan_cutting
from pointcloud.dataset.shard import ShardSums, write_shard
from pointcloud.dataset.splits import SplitRule
from pointcloud.errors import ScanError
from pointcloud.formats.given_crs import GivenCrs
from pointcloud.formats.las_raw import waveform_file
from pointcloud.formats.reader import Window, in_crs, read_header
from pointcloud.formats.s3dis import is_room, object_files
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labels import LabelScheme
from pointcloud.storage import files as storage
from pointcloud.storage import inputs, ledger
from pointcloud.storage.contents import Content, Contents, content_of

_PACKETS = "packets"  # what the file of the waveform packets is called among the files of a scan


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessConfig:
    """How every scan of a dataset is made into blocks.

    Attributes:
        block_config, scheme, rule: sizes, classes, splits.
        required: features that each scan must be able to give.
        sample_points: draw every block to exactly this many points, as the paper does with 4096; 0: all points.
        min_points: tiles with fewer are left out.
        window: x_min, y_min, x_max, y_max in CRS units; only points inside, half-open. None: all points.
    """

    block_config: BlockConfig
    scheme: LabelScheme
    rule: SplitRule
    required: tuple[str, ...] = ()
    sample_points: int = 0
    min_points: int = 1
    window: Window | None = None

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold."""
        return {
            "config": self.block_config.to_dict(),
            "scheme": self.scheme.to_dict(),
            "rule": self.rule.to_dict(),
            "required": list(self.required),
            "sample_points": self.sample_points,
            "min_points": self.min_points,
            "window": None if self.window is None else list(self.window),
        }


@dataclass(frozen=True)
class Examined:
    """A scan before its points are decoded.

    Attributes:
        fingerprint: what tells its content apart, with the CRS that it is read in where that is not the file's.
        header: None where it cannot be read; with the CRS that the scan is read in.
        error: why it has no header.
        crs: that the scan is read in, in place of what its file says; None: what the file says.
        contents: what its files held.
    """

    fingerprint: str
    header: ScanHeader | None
    error: str = ""
    crs: CRS | None = None
    contents: Contents = field(default_factory=dict)


def examine(source: inputs.Source, given: GivenCrs | None = None, before: Contents | None = None) -> Examined:
    """Look at a scan from outside; its bytes are read only where its files do not look as they did before.

    Args:
        source: the scan.
        given: CRSs and units of scans, in place of what their files say.
        before: what its files held when they were last read.

    Raises:
        StorageError: it cannot be reached.
    """
    before = before or {}
    fingerprint, contents = fingerprint_of(source.uri, before)
    try:
        header = read_header(source.uri)
    except ScanError as error:
        return Examined(fingerprint, None, str(error), contents=contents)
    if "wavepacket_index" in header.dimensions:
        # The labelled cloud brings along the packets beside the scan: when they change, it must be made again.
        packets = waveform_file(source.uri)
        if storage.exists(packets):
            contents |= {_PACKETS: content_of(packets, before.get(_PACKETS))}
            fingerprint = ledger.key_of(fingerprint, contents[_PACKETS].fingerprint)
    crs = given.of(source.name, header.crs) if given is not None else None
    header = header if crs is None else in_crs(header, crs)
    return Examined(_with_units(fingerprint, header.crs, crs), header, crs=crs, contents=contents)


def agree_on_crs(
    examined: Mapping[str, Examined], config: BlockConfig
) -> tuple[dict[str, Examined], list[str]]:
    """Scans with the CRSs that they are read in together, see `common_crs.adopt_crs`, and sentences about that."""
    headers = {scan: one.header for scan, one in examined.items() if one.header is not None}
    adopted, sentences = adopt_crs(headers, config)
    agreed = dict(examined)
    for scan, crs in adopted.items():
        fingerprint = _with_units(examined[scan].fingerprint, None, crs)
        agreed[scan] = replace(
            examined[scan], fingerprint=fingerprint, header=replace(headers[scan], crs=crs), crs=crs
        )
    given = sorted(scan for scan, one in examined.items() if one.crs is not None)
    if given:
        sentences.insert(
            0, f"read in the CRS or the units that are given, not in what their files say: {listed(given)}."
        )
    apart = kept_apart({scan: one.header for scan, one in agreed.items() if one.header is not None}, config)
    return agreed, [*sentences, apart] if apart else sentences


def _with_units(fingerprint: str, crs: CRS | None, instead: CRS | None) -> str:
    """A fingerprint that is another one where lengths are, because a file's CRS is understood otherwise or not used."""
    if instead is not None:
        return ledger.key_of(fingerprint, instead.to_json())
    try:
        units = metres_per_unit(crs)
    except ScanError:  # in degrees: it is not read
        return fingerprint
    return fingerprint if units == (1.0, 1.0) else ledger.key_of(fingerprint, units)


def fingerprint_of(uri: str, before: Contents | None = None) -> tuple[str, dict[str, Content]]:
    """What tells one content of a scan from another, and what each of its files held.

    Args:
        uri: the scan.
        before: what its files held when they were last read.

    Raises:
        StorageError: it cannot be reached.
    """
    before = before or {}
    if not is_room(uri):
        content = content_of(uri, before.get(""))
        return content.fingerprint, {"": content}
    # A room is a folder: its objects together are its content.
    try:
        files = object_files(uri)
    except ScanError:  # none; reading the room reports it
        files = []
    contents = {file.name: content_of(file.uri, before.get(file.name)) for file in files}
    return ledger.key_of([(name, content.fingerprint) for name, content in contents.items()]), contents


def read_scan(
    source: inputs.Source, config: PreprocessConfig, folder: Path, crs: CRS | None = None
) -> DecodedScan:
    """Decode a scan into an Arrow file in a local folder.

    Args:
        source: the scan.
        config: how it is made into blocks.
        folder: local.
        crs: of the scan, in place of what its file says.

    Raises:
        ScanError: it cannot be read, or lacks what a required feature needs.
        StorageError: it cannot be reached.
    """
    path = folder / f"{ledger.key_of(source.name)}.arrow"
    try:
        decoded = decode_scan(
            source.name, source.uri, path, config.block_config, config.window,
            noise_codes=config.scheme.noise_codes, crs=crs,
        )  # fmt: skip
        missing = {
            name: feature for feature in config.required for name in FEATURES[feature][0]
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


def cut_scan(
    decoded: DecodedScan, neighbours: Sequence[DecodedScan], config: PreprocessConfig, uri: str
) -> ShardSums:
    """Cut a scan's own tiles, with what its neighbours have in and around them, into the shard `uri`.

    Raises:
        ScanError: points that no cut can part.
        StorageError: `uri` cannot be written.
    """
    cutting = plan_cutting(decoded, neighbours, config.block_config, config.scheme, config.rule)
    return write_shard(uri, cutting, decoded.crs, config.sample_points, config.min_points)
