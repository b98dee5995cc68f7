"""The proof that a labelled LAS copy differs from its scan in nothing but what labelling may change."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

import laspy
import numpy as np

from pointcloud.delivery.extra_dimensions import ORIGINAL, labelling_dimensions
from pointcloud.errors import PointloomError
from pointcloud.formats.decoding import reading
from pointcloud.formats.las import chunk_points, iterate_chunks, open_scan
from pointcloud.formats.las_extra_bytes import read_extra_bytes
from pointcloud.formats.las_point_formats import SUCCESSOR, angle_of_rank
from pointcloud.formats.las_raw import (
    BOUNDS,
    LASZIP,
    LEGACY_COUNTS,
    RETURNS,
    REWRITTEN,
    WKT_BIT,
    digest,
    has_external_waveforms,
    read_head,
    read_records,
    returns_of,
    waveform_extent,
    waveform_file,
)
from pointcloud.labelling.options import LabelOptions
from pointcloud.storage import files as storage

_ADDED_BY_UPGRADE = {2112, 65535}
"""Records that an upgraded copy may have besides: the CRS in WKT, the waveforms that LAS 1.3 does not list."""
_STORED_FIELDS = {
    "version": slice(24, 26), "file_source_id": slice(4, 6), "uuid": slice(8, 24),
    "system_identifier": slice(26, 58), "generating_software": slice(58, 90), "creation_date": slice(90, 94),
    "scales": slice(131, 155), "offsets": slice(155, 179),
}  # fmt: skip
_PARSED_FIELDS = ("point_count", "extra_header_bytes", "extra_vlr_bytes")
HEADER_FIELDS = ("global_encoding", *_STORED_FIELDS, *_PARSED_FIELDS, "bounds", "number_of_points_by_return")
"""What of the header is compared; the rest says where things lie in the file."""


class DifferenceError(PointloomError):
    """A copy that differs from its scan; the text names what differs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What was compared between a scan and its labelled copy, all of it the same, and what is meant to differ.

    Attributes:
        points: the number of points, which have the same order in both.
        dimensions: compared byte by byte; classes are compared where they must stay.
        header_fields: compared as they are stored.
        vlrs, evlrs: the number of records compared; those that describe how points are stored are not.
        waveforms: which packets there are, and what was compared of them.
        changed: what differs -> why.
        content: BLAKE2b of the copy, as `files.fingerprint` gives it.
    """

    points: int
    dimensions: tuple[str, ...]
    header_fields: tuple[str, ...]
    vlrs: int
    evlrs: int
    waveforms: str
    changed: dict[str, str]
    content: str

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold, for the ledger."""
        return asdict(self) | {
            "dimensions": list(self.dimensions),
            "header_fields": list(self.header_fields),
        }


class Written(NamedTuple):
    """What writing a labelled cloud gives back: (256,) int64 points of each class code, and the proof."""

    counts: np.ndarray
    proof: Proof


def find_difference(
    scan_uri: str, copy_uri: str, options: LabelOptions | None = None, written: Collection[str] | None = None
) -> str | None:
    """What, besides the labels, differs between a scan and its labelled copy; None if nothing. As `prove`."""
    try:
        prove(scan_uri, copy_uri, options, written)
    except DifferenceError as error:
        return str(error)
    return None


def prove(
    scan_uri: str,
    copy_uri: str,
    options: LabelOptions | None = None,
    written: Collection[str] | None = None,
    waveforms: str | None = None,
) -> Proof:
    """Compare a scan with its labelled copy.

    Args:
        scan_uri, copy_uri: LAS or LAZ.
        options: which points may have another class; None: all of them.
        written: extra dimensions that labelling wrote; None: all that any labelling writes.
        waveforms: the copy's file of waveform packets; None: the one beside it.

    Raises:
        DifferenceError: they differ in what must not.
        ScanError: one of them cannot be read.
    """
    options = options or LabelOptions()
    with (
        open_scan(scan_uri) as scan,
        open_scan(copy_uri) as copy,
        storage.open_input(scan_uri) as scan_file,
        storage.open_input(copy_uri) as copy_file,
        reading(scan_uri),
    ):
        heads = read_head(scan_file), read_head(copy_file)
        _compare_header(scan, copy, heads, options.upgrade)
        counts = [_compare_records(scan_file, copy_file, extended, heads) for extended in (False, True)]
        _compare_descriptions(scan.header, copy.header)
        dimensions, num_changed = _compare_points(scan_uri, scan, copy_uri, copy, options, written)
        # After the points: if a point moved, that is the cause, and not the bounds and counts that follow from it.
        _compare_statistics(heads)
        records = _compare_descriptors(scan_file, copy_file)
        packets = _compare_waveforms(
            scan_uri, scan_file, copy_file, heads[0], waveforms or waveform_file(copy_uri)
        )
        return Proof(
            points=scan.header.point_count,
            dimensions=dimensions,
            header_fields=HEADER_FIELDS,
            vlrs=counts[0],
            evlrs=counts[1],
            waveforms=packets,
            changed=_changes(scan, copy, (scan_file, copy_file), heads, num_changed) | records,
            content=f"blake2b:{storage.content_hash(copy_uri)}",
        )


def _compare_header(
    scan: laspy.LasReader, copy: laspy.LasReader, heads: tuple[bytes, bytes], may_upgrade: bool
) -> None:
    scan_head, copy_head = heads
    formats = [reader.header.point_format.id for reader in (scan, copy)]
    upgraded = formats[1] == SUCCESSOR.get(formats[0])
    for field, place in _STORED_FIELDS.items():
        if scan_head[place] != copy_head[place] and not (upgraded and field == "version"):
            raise DifferenceError(f"header field {field}")
    for field in _PARSED_FIELDS:
        if getattr(scan.header, field) != getattr(copy.header, field):
            raise DifferenceError(f"header field {field}")
    encodings = [int.from_bytes(head[6:8], "little") for head in heads]
    if encodings[0] != encodings[1] & (~WKT_BIT if upgraded and not encodings[0] & WKT_BIT else ~0):
        raise DifferenceError("header field global_encoding")
    if formats[0] != formats[1] and not (upgraded and may_upgrade):
        raise DifferenceError("point format")


def _compare_records(scan_file: Any, copy_file: Any, extended: bool, heads: tuple[bytes, bytes]) -> int:
    """The number of records compared, by the bytes that are stored, whatever laspy makes of them."""
    delivered, copied = (
        [(r.head, r.digest(file)) for r in read_records(file, extended) if r.name not in REWRITTEN]
        for file in (scan_file, copy_file)
    )
    if heads[0][104] & 0x3F != heads[1][104] & 0x3F:
        copied = [
            r
            for r in copied
            if r in delivered or int.from_bytes(r[0][18:20], "little") not in _ADDED_BY_UPGRADE
        ]
    if delivered != copied:
        raise DifferenceError("an EVLR" if extended else "a VLR")
    return len(delivered)


def _compare_descriptions(scan: laspy.LasHeader, copy: laspy.LasHeader) -> None:
    kept, copied = _described(scan), _described(copy)
    if {name: d for name, d in copied.items() if name in kept} != kept:
        raise DifferenceError("the description of an extra dimension")
    strange = copied.keys() - kept.keys() - labelling_dimensions(copy)
    if strange:
        raise DifferenceError(f"the extra dimension {min(strange)}, which no labelling writes")


def _compare_descriptors(scan_file: Any, copy_file: Any) -> dict[str, str]:
    """What of the records that describe extra bytes is another in the copy -> why."""
    delivered, copied = read_extra_bytes(scan_file), read_extra_bytes(copy_file)
    if delivered.descriptors != copied.descriptors[: len(delivered.descriptors)]:
        raise DifferenceError("the description of an extra dimension")
    changed = {}
    if delivered.left_out:
        changed["delivered extra bytes VLR"] = "left out: it describes other bytes than the points have"
    if delivered.num_records > 1:
        changed[f"{delivered.num_records} extra bytes records"] = "joined into one VLR, in the same order"
    return changed


def _compare_points(
    scan_uri: str, scan: laspy.LasReader, copy_uri: str, copy: laspy.LasReader, options: LabelOptions,
    written: Collection[str] | None,
) -> tuple[tuple[str, ...], int]:  # fmt: skip
    """The dimensions compared, and the points that have another class."""
    ignored = {"classification"} | (labelling_dimensions(scan.header) if written is None else set(written))
    names = tuple(name for name in scan.header.point_format.dimension_names if name not in ignored)
    before, after = (_find_original(reader.header) for reader in (scan, copy))
    if options.keep_original and after is None:
        raise DifferenceError(f"dimension {ORIGINAL.name}, which is missing")
    added = after if before is None else None
    num_changed = 0
    size = min(chunk_points(scan.header), chunk_points(copy.header))
    scan_chunks, copy_chunks = iterate_chunks(scan_uri, scan, size), iterate_chunks(copy_uri, copy, size)
    for scan_chunk, copy_chunk in zip_longest(scan_chunks, copy_chunks):
        if scan_chunk is None or copy_chunk is None or len(scan_chunk) != len(copy_chunk):
            raise DifferenceError("the number of points")
        for name in names:
            if not _same(scan_chunk, copy_chunk, name):
                raise DifferenceError(f"dimension {name}")
        codes, now = np.asarray(scan_chunk.classification), np.asarray(copy_chunk.classification)
        kept = ~options.may_change(codes)
        if not np.array_equal(codes[kept], now[kept]):
            raise DifferenceError("the class of points that must keep theirs")
        if added is not None and not np.array_equal(codes, np.asarray(copy_chunk[added])):
            raise DifferenceError(f"dimension {added}, which is not the scan's classification")
        num_changed += int(np.count_nonzero(codes != now))
    return names, num_changed


def _compare_statistics(heads: tuple[bytes, bytes]) -> None:
    scan_head, copy_head = heads
    if scan_head[BOUNDS] != copy_head[BOUNDS]:
        raise DifferenceError("header field bounds")
    upgraded = (scan_head[104] ^ copy_head[104]) & 0x3F
    if (not upgraded and scan_head[LEGACY_COUNTS] != copy_head[LEGACY_COUNTS]) or (
        copy_head[25] >= 4 and returns_of(scan_head, copy_head) != copy_head[RETURNS]
    ):
        raise DifferenceError("header field number_of_points_by_return")


def _compare_waveforms(scan_uri: str, scan_file: Any, copy_file: Any, head: bytes, beside: str) -> str:
    """What there is of waveform packets, in words."""
    if has_external_waveforms(head):
        source = waveform_file(scan_uri)
        if not storage.exists(source):
            return f"in a file that is not beside the scan ({storage.name_of(source)}); nothing to copy"
        if not storage.exists(beside) or storage.content_hash(source) != storage.content_hash(beside):
            raise DifferenceError("the file of waveform packets beside it")
        return f"{storage.size(source)} bytes in {storage.name_of(source)}, copied beside it and compared"
    if head[25] < 3:
        return "none"
    at, size = waveform_extent(scan_file, head[25])
    if not size:
        return "none"
    copied_at, copied_size = waveform_extent(copy_file, head[25])
    if size != copied_size or digest(scan_file, at, size) != digest(copy_file, copied_at, size):
        raise DifferenceError("the waveform packets")
    return f"{size} bytes inside the file, compared"


def _changes(
    scan: laspy.LasReader, copy: laspy.LasReader, files: tuple[Any, Any], heads: tuple[bytes, bytes], num: int
) -> dict[str, str]:
    """What differs between two files that are the same in all else -> why."""
    changes = {"classification": f"the labels: another class for {num} of {scan.header.point_count} points"}
    before, after = (reader.header.point_format for reader in (scan, copy))
    names = set(before.extra_dimension_names)
    added = [name for name in after.extra_dimension_names if name not in names]
    if added:
        changes[f"extra dimensions {', '.join(added)}"] = "added by labelling"
    again = sorted(labelling_dimensions(scan.header))
    if again:
        changes[f"extra dimensions {', '.join(again)}"] = "of an earlier labelling, may be written again"
    if before.id != after.id:
        changes[f"point format {before.id} to {after.id}, version, legacy counts"] = (
            "a class code above 31 needs a byte"
        )
        changes["scan angle"] = "in steps of 0.006° that give the same whole degrees"
        if heads[0][25] < 4:
            changes["counts of returns 6 to 15"] = "LAS before 1.4 has none; those of the points"
        if (heads[0][6] ^ heads[1][6]) & WKT_BIT:
            changes["WKT VLR, global encoding"] = "the newer point formats say their CRS in WKT"
    scan_records, copy_records = (
        {record.name for extended in (False, True) for record in read_records(file, extended)}
        for file in files
    )
    if any(user == "copc" for user, _ in scan_records):
        changes["COPC records"] = "left out: points keep their order, an octree's index would be wrong"
    if (heads[0][104] ^ heads[1][104]) & 0x80:
        changes["compression"] = "as asked for"
    elif LASZIP in copy_records:
        changes["LASzip VLR"] = "belongs to the compressed points"
    changes["extra bytes VLR, record length, offsets within the file"] = "follow from the above"
    return changes


def _find_original(header: laspy.LasHeader) -> str | None:
    """The extra dimension in which a labelling has kept the delivered classes."""
    return next((d.name for d in header.point_format.extra_dimensions if ORIGINAL.is_same(d)), None)


def _same(
    scan_chunk: laspy.ScaleAwarePointRecord, copy_chunk: laspy.ScaleAwarePointRecord, name: str
) -> bool:
    if name == "scan_angle_rank" and name not in (copy_chunk.array.dtype.names or ()):
        return np.array_equal(angle_of_rank(scan_chunk.array[name]), copy_chunk.array["scan_angle"])
    # Raw stored values, not scaled ones, and bytes rather than numbers, so that NaN equals itself.
    if name in (scan_chunk.array.dtype.names or ()) and name in (copy_chunk.array.dtype.names or ()):
        return (
            np.ascontiguousarray(scan_chunk.array[name]).tobytes()
            == np.ascontiguousarray(copy_chunk.array[name]).tobytes()
        )
    return np.array_equal(scan_chunk[name], copy_chunk[name])


def _described(header: laspy.LasHeader) -> dict[str, str]:
    return {d.name: repr(d) for d in header.point_format.extra_dimensions}
