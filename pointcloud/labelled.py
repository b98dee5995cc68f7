"""Writing the labelled cloud: the scan again, every byte of it, with another classification and a confidence.

Before a file takes its final name it is read back and compared with the scan.
"""

from __future__ import annotations

import struct
from copy import deepcopy
from itertools import zip_longest
from pathlib import Path
from typing import Any

import laspy
import numpy as np

from pointcloud import storage
from pointcloud.decoding import reading
from pointcloud.errors import PointloomError, ScanError
from pointcloud.labels import LabelScheme
from pointcloud.scan import iterate_chunks, open_scan

CONFIDENCE = "confidence"
_DESCRIPTION = "Pointloom: class probability"
_CONFIDENCE_STEP = 0.01
_LAST_CODE_OF_LEGACY_FORMATS = 31
_WAVEFORM_FIELD, _WAVEFORM_EVLR = 227, ("LASF_Spec", 65535)  # LAS 1.4 R16, tables 3 and 22
_IDENTITY = slice(
    4, 94
)  # source id, global encoding, project id, version, system, software, creation day and year
_REWRITTEN_VLRS = ("ExtraBytesVlr", "LasZipVlr", "CopcInfoVlr", "CopcHierarchyVlr")


def output_name(name: str) -> str:
    """The labelled cloud's name for a scan's name: the same, but a COPC file comes back as plain LAZ.

    A COPC file's points are ordered by its octree and its index would be wrong for any other writer; the order
    of points is kept, the index is not.
    """
    return name[: -len(".copc.laz")] + ".laz" if name.lower().endswith(".copc.laz") else name


def check_codes(header: laspy.LasHeader, scheme: LabelScheme) -> None:
    """Raises ScanError when the scheme's codes do not fit the scan's point format (5 bits in formats 0 to 5)."""
    largest = max(label.code for label in scheme.classes)
    if header.point_format.id < 6 and largest > _LAST_CODE_OF_LEGACY_FORMATS:
        raise ScanError(
            f"class code {largest} does not fit point format {header.point_format.id}, which ends at "
            f"{_LAST_CODE_OF_LEGACY_FORMATS}; use a label scheme with smaller codes or convert the "
            "scan to format 6 or above."
        )


def write_labelled(scan_uri: str, out_uri: str, codes: np.ndarray, confidence: np.ndarray) -> None:
    """Copy a scan with new class codes.

    Args:
        scan_uri: a LAS or LAZ scan of P points.
        out_uri: where the copy appears once it is complete and proven; LAZ when it ends in .laz.
        codes: (P,) uint8, the new classification.
        confidence: (P,) float in [0, 1], written as an extra dimension in steps of 0.01.

    Raises:
        ScanError: the scan cannot be read, or its points are not P.
        PointloomError: the copy differs from the scan (nothing is written then).
    """
    with storage.staged(out_uri) as part:
        with open_scan(scan_uri) as reader:
            if reader.header.point_count != len(codes):
                raise ScanError(
                    f"scan {scan_uri!r} has {reader.header.point_count} points, expected {len(codes)}."
                )
            _copy(scan_uri, reader, part, out_uri.lower().endswith(".laz"), codes, confidence)
        _copy_raw_parts(scan_uri, part)
        difference = find_difference(scan_uri, str(part))
        if difference:
            raise PointloomError(
                f"the labelled copy of {scan_uri!r} would differ in {difference}; nothing was "
                "written, please report this scan."
            )


def _copy(
    scan_uri: str, reader: laspy.LasReader, part: Path, compress: bool, codes: np.ndarray, confidence: np.ndarray
) -> None:  # fmt: skip
    header, dimension = _labelled_header(reader.header)
    # EVLRs are read before the points: afterwards a LAZ reader stands somewhere else.
    evlrs = [evlr for evlr in (reader.evlrs or []) if type(evlr).__name__ not in _REWRITTEN_VLRS]
    written = 0
    with laspy.open(str(part), mode="w", header=header, do_compress=compress) as writer:
        for chunk in iterate_chunks(scan_uri, reader):
            record = laspy.ScaleAwarePointRecord.zeros(len(chunk), header=header)
            for name in chunk.array.dtype.names or ():
                record.array[name] = chunk.array[name]
            now = slice(written, written + len(chunk))
            record.classification = codes[now]
            record[dimension] = np.round(confidence[now] / _CONFIDENCE_STEP) * _CONFIDENCE_STEP
            writer.write_points(record)
            written += len(chunk)
        if evlrs:
            writer.write_evlrs(laspy.vlrs.vlrlist.VLRList(evlrs))


def _labelled_header(original: laspy.LasHeader) -> tuple[laspy.LasHeader, str]:
    """The copy's header, and the name of its confidence dimension: a scan may have one of its own already."""
    header = deepcopy(original)
    for name in _REWRITTEN_VLRS[1:]:
        header.vlrs.extract(name)
    if header.version.minor == 0:
        # laspy writes no 1.0; its records are those of 1.1, and the version byte is put back afterwards.
        header.version = laspy.header.Version(1, 1)
    existing = {d.name: d.description for d in header.point_format.extra_dimensions}
    if existing.get(CONFIDENCE) == _DESCRIPTION:
        return header, CONFIDENCE
    dimension = CONFIDENCE if CONFIDENCE not in existing else f"{CONFIDENCE}_pointloom"
    if existing.get(dimension) != _DESCRIPTION:
        scale = laspy.ExtraBytesParams(
            dimension, np.uint8, _DESCRIPTION, scales=np.array([_CONFIDENCE_STEP]), offsets=np.array([0.0])
        )
        header.add_extra_dims([scale])
    return header, dimension


def _copy_raw_parts(scan_uri: str, part: Path) -> None:
    """Bring along what laspy does not: impossible creation dates, version 1.0, waveform packets inside the file."""
    with storage.open_input(scan_uri) as stream, open(part, "r+b") as copy:
        head = stream.read(375)
        copy.seek(_IDENTITY.start)
        copy.write(head[_IDENTITY])
        at = struct.unpack_from("<Q", head, _WAVEFORM_FIELD)[0] if head[25] >= 3 else 0
        if not 0 < at < stream.size():
            return
        if head[25] == 3:
            # LAS 1.3 keeps the one EVLR it allows at the end of the file.
            stream.seek(at)
            start = copy.seek(0, 2)
            while piece := stream.read(4 << 20):
                copy.write(piece)
        else:
            start = _find_evlr(copy, _WAVEFORM_EVLR)
        copy.seek(_WAVEFORM_FIELD)
        copy.write(struct.pack("<Q", start))


def _find_evlr(stream: Any, wanted: tuple[str, int]) -> int:
    """Byte offset of an EVLR in a LAS 1.4 file, 0 where there is none."""
    stream.seek(235)
    at, count = struct.unpack("<QI", stream.read(12))
    for _ in range(count):
        stream.seek(at)
        _, user, record, length = struct.unpack("<H16sHQ", stream.read(28))
        if (user.split(b"\0")[0].decode(), record) == wanted:
            return at
        at += 60 + length
    return 0


def find_difference(scan_uri: str, copy_uri: str) -> str | None:
    """What, besides classification and confidence, differs between a scan and its labelled copy; None if nothing."""
    with open_scan(scan_uri) as scan, open_scan(copy_uri) as copy, reading(scan_uri):
        for field in (
            "version", "point_count", "scales", "offsets", "file_source_id", "uuid", "system_identifier",
            "generating_software", "creation_date", "extra_header_bytes", "extra_vlr_bytes",
        ):  # fmt: skip
            if not np.array_equal(getattr(scan.header, field), getattr(copy.header, field)):
                return f"header field {field}"
        if scan.header.global_encoding.value != copy.header.global_encoding.value:
            return "header field global_encoding"
        if scan.header.point_format.id != copy.header.point_format.id:
            return "point format"
        for kind, ours, theirs in (
            ("VLR", scan.header.vlrs, copy.header.vlrs),
            ("EVLR", scan.evlrs or [], copy.evlrs or []),
        ):
            if _records(ours) != _records(theirs):
                return f"a {kind}"
        kept = _described(scan.header)
        if {name: d for name, d in _described(copy.header).items() if name in kept} != kept:
            return "the description of an extra dimension"
        ignored = {"classification", CONFIDENCE, f"{CONFIDENCE}_pointloom"}
        names = [
            n
            for n in scan.header.point_format.dimension_names
            if n not in ignored or _foreign(scan.header, n)
        ]
        pairs = zip_longest(iterate_chunks(scan_uri, scan), iterate_chunks(copy_uri, copy))
        for mine, other in pairs:
            if mine is None or other is None or len(mine) != len(other):
                return "the number of points"
            for name in names:
                if not _same(mine, other, name):
                    return f"dimension {name}"
    return None


def _same(mine: laspy.ScaleAwarePointRecord, other: laspy.ScaleAwarePointRecord, name: str) -> bool:
    # Raw stored values, not scaled ones, and bytes rather than numbers, so that NaN equals itself.
    if name in (mine.array.dtype.names or ()):
        return (
            np.ascontiguousarray(mine.array[name]).tobytes()
            == np.ascontiguousarray(other.array[name]).tobytes()
        )
    return np.array_equal(mine[name], other[name])


def _foreign(header: laspy.LasHeader, name: str) -> bool:
    """Whether an extra dimension named like ours is the scan's own."""
    return any(d.name == name and d.description != _DESCRIPTION for d in header.point_format.extra_dimensions)


def _records(vlrs: Any) -> list[tuple[str, int, str, bytes]]:
    return [
        (vlr.user_id, vlr.record_id, vlr.description, vlr.record_data_bytes())
        for vlr in vlrs
        if type(vlr).__name__ not in _REWRITTEN_VLRS
    ]


def _described(header: laspy.LasHeader) -> dict[str, str]:
    return {d.name: repr(d) for d in header.point_format.extra_dimensions}
