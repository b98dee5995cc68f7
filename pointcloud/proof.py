"""Before labelling, that a scan can be read; after it, that its copy differs in what labelling may change alone."""

from __future__ import annotations

from collections.abc import Collection
from itertools import zip_longest
from typing import Any

import laspy
import numpy as np

from pointcloud.decoding import reading
from pointcloud.extra_dimensions import ORIGINAL, ours
from pointcloud.label_options import LabelOptions
from pointcloud.point_formats import SUCCESSOR, angle_of_rank
from pointcloud.scan import iterate_chunks, open_scan

REWRITTEN_VLRS = ("ExtraBytesVlr", "LasZipVlr", "CopcInfoVlr", "CopcHierarchyVlr")
_WKT_BIT = 0x10
_MAY_COME = {
    2112,
    65535,
}  # records of an upgraded copy: the CRS in WKT, the waveforms that LAS 1.3 does not list
_FIELDS = (
    "version", "point_count", "scales", "offsets", "file_source_id", "uuid", "system_identifier",
    "generating_software", "creation_date", "extra_header_bytes", "extra_vlr_bytes",
)  # fmt: skip


def find_difference(
    scan_uri: str, copy_uri: str, options: LabelOptions | None = None, written: Collection[str] | None = None
) -> str | None:
    """What, besides the labels, differs between a scan and its labelled copy; None if nothing.

    Args:
        scan_uri, copy_uri: LAS or LAZ.
        options: which points may have another class; None: all of them.
        written: extra dimensions that labelling wrote; None: all that any labelling writes.

    Raises:
        ScanError: one of them cannot be read.
    """
    options = options or LabelOptions()
    with open_scan(scan_uri) as scan, open_scan(copy_uri) as copy, reading(scan_uri):
        difference = _header_difference(scan, copy, options.upgrade)
        if difference:
            return difference
        ignored = {"classification"} | (ours(scan.header) if written is None else set(written))
        names = [name for name in scan.header.point_format.dimension_names if name not in ignored]
        before, after = (_find_original(reader.header) for reader in (scan, copy))
        if options.keep_original and after is None:
            return f"dimension {ORIGINAL.name}, which is missing"
        new = after if before is None else None
        for mine, other in zip_longest(iterate_chunks(scan_uri, scan), iterate_chunks(copy_uri, copy)):
            if mine is None or other is None or len(mine) != len(other):
                return "the number of points"
            for name in names:
                if not _same(mine, other, name):
                    return f"dimension {name}"
            codes = np.asarray(mine.classification)
            kept = ~options.may_change(codes)
            if not np.array_equal(codes[kept], np.asarray(other.classification)[kept]):
                return "the class of points that must keep theirs"
            if new is not None and not np.array_equal(codes, np.asarray(other[new])):
                return f"dimension {new}, which is not the scan's classification"
    return None


def _header_difference(scan: laspy.LasReader, copy: laspy.LasReader, may_upgrade: bool) -> str | None:
    upgraded = copy.header.point_format.id == SUCCESSOR.get(scan.header.point_format.id)
    for field in _FIELDS:
        if upgraded and field == "version":
            continue
        if not np.array_equal(getattr(scan.header, field), getattr(copy.header, field)):
            return f"header field {field}"
    encodings = [reader.header.global_encoding.value for reader in (scan, copy)]
    if encodings[0] != encodings[1] & (~_WKT_BIT if upgraded and not encodings[0] & _WKT_BIT else ~0):
        return "header field global_encoding"
    if scan.header.point_format.id != copy.header.point_format.id and not (upgraded and may_upgrade):
        return "point format"
    for kind, mine, other in (
        ("VLR", scan.header.vlrs, copy.header.vlrs),
        ("EVLR", scan.evlrs or [], copy.evlrs or []),
    ):
        had, there = _records(mine), _records(other)
        if upgraded:
            there = [record for record in there if record in had or record[1] not in _MAY_COME]
        if had != there:
            return f"a {kind}"
    kept, found = _described(scan.header), _described(copy.header)
    if {name: d for name, d in found.items() if name in kept} != kept:
        return "the description of an extra dimension"
    strange = found.keys() - kept.keys() - ours(copy.header)
    return f"the extra dimension {min(strange)}, which no labelling writes" if strange else None


def _find_original(header: laspy.LasHeader) -> str | None:
    """The extra dimension in which a labelling has kept the delivered classes."""
    return next((d.name for d in header.point_format.extra_dimensions if ORIGINAL.is_same(d)), None)


def _same(mine: laspy.ScaleAwarePointRecord, other: laspy.ScaleAwarePointRecord, name: str) -> bool:
    if name == "scan_angle_rank" and name not in (other.array.dtype.names or ()):
        return np.array_equal(angle_of_rank(mine.array[name]), other.array["scan_angle"])
    # Raw stored values, not scaled ones, and bytes rather than numbers, so that NaN equals itself.
    if name in (mine.array.dtype.names or ()) and name in (other.array.dtype.names or ()):
        return (
            np.ascontiguousarray(mine.array[name]).tobytes()
            == np.ascontiguousarray(other.array[name]).tobytes()
        )
    return np.array_equal(mine[name], other[name])


def _records(vlrs: Any) -> list[tuple[str, int, str, bytes]]:
    return [
        (vlr.user_id, vlr.record_id, vlr.description, vlr.record_data_bytes())
        for vlr in vlrs
        if type(vlr).__name__ not in REWRITTEN_VLRS
    ]


def _described(header: laspy.LasHeader) -> dict[str, str]:
    return {d.name: repr(d) for d in header.point_format.extra_dimensions}
