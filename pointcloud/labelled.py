"""Writing the labelled cloud: the scan again, every byte of it, with other classes and what is known of them.

Before a file takes its final name it is read back and compared with the scan.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import laspy
import numpy as np

from pointcloud import extra_dimensions, storage
from pointcloud.errors import PointloomError, ScanError
from pointcloud.extra_dimensions import ORIGINAL, AddedDimension, place
from pointcloud.label_options import CONFIDENCE_STEP, LabelOptions
from pointcloud.labels import LabelScheme
from pointcloud.point_formats import LAST_SHORT_CODE, copy_points, has_short_codes, upgrade
from pointcloud.proof import REWRITTEN_VLRS, find_difference
from pointcloud.scan import iterate_chunks, open_scan

CONFIDENCE = extra_dimensions.CONFIDENCE.name
_WAVEFORM_FIELD, _WAVEFORM_EVLR = 227, ("LASF_Spec", 65535)  # LAS 1.4 R16, tables 3 and 22
_IDENTITY = slice(
    4, 94
)  # source id, global encoding, project id, version, system, software, creation day and year
_ENCODING, _VERSION, _WKT_BIT = slice(2, 4), slice(20, 22), 0x10  # within the identity
_EVLRS_FIELD = 235


def output_name(name: str, format: str = "same") -> str:
    """The labelled cloud's name for a scan's name: the same, but a COPC file comes back as plain LAZ.

    A COPC file's points are ordered by its octree and its index would be wrong for any other writer; the order
    of points is kept, the index is not.
    """
    if name.lower().endswith(".copc.laz"):
        name = name[: -len(".copc.laz")] + ".laz"
    return name if format == "same" else f"{name.rpartition('.')[0]}.{format}"


def fits(dimensions: Collection[str], scheme: LabelScheme, options: LabelOptions) -> bool:
    """Whether the labelled cloud of a scan with these dimensions can hold the scheme's codes, under these options."""
    largest = max(label.code for label in scheme.classes)
    holds_bytes = options.upgrade or options.format in ("ply", "parquet")
    return holds_bytes or largest <= LAST_SHORT_CODE or not has_short_codes(dimensions)


def check_codes(header: laspy.LasHeader, scheme: LabelScheme, options: LabelOptions | None = None) -> None:
    """Raises ScanError when the scheme's codes do not fit the scan's point format (5 bits in formats 0 to 5)."""
    if not fits(list(header.point_format.dimension_names), scheme, options or LabelOptions()):
        largest = max(label.code for label in scheme.classes)
        raise ScanError(
            f"class code {largest} does not fit point format {header.point_format.id}, which ends at "
            f"{LAST_SHORT_CODE}; upgrade the format, or use a label scheme or codes with smaller ones."
        )


def write_labelled(
    scan_uri: str,
    out_uri: str,
    codes: np.ndarray,
    confidence: np.ndarray,
    options: LabelOptions | None = None,
    measures: Mapping[AddedDimension, np.ndarray] | None = None,
) -> np.ndarray:
    """Copy a scan with new class codes.

    Args:
        scan_uri: a LAS or LAZ scan of P points.
        out_uri: where the copy appears once it is complete and proven; LAZ when it ends in .laz.
        codes: (P,) uint8, the predicted classification.
        confidence: (P,) float in [0, 1], written as an extra dimension in steps of 0.01.
        options: which points may change, what is kept of the delivered classes, and whether the point format may be
            a newer one; None: the defaults.
        measures: further extra dimensions, (P,) uint8 each, in the steps of the dimension.

    Returns:
        (256,) int64, the number of points written with each class code.

    Raises:
        ScanError: the scan cannot be read, or its points are not P.
        PointloomError: the copy differs from the scan (nothing is written then).
    """
    options = options or LabelOptions()
    with storage.staged(out_uri) as part:
        with open_scan(scan_uri) as reader:
            if reader.header.point_count != len(codes):
                raise ScanError(
                    f"scan {scan_uri!r} has {reader.header.point_count} points, expected {len(codes)}."
                )
            compress = out_uri.lower().endswith(".laz")
            written, counts = _copy(
                scan_uri, reader, part, compress, codes, confidence, options, measures or {}
            )
        _copy_raw_parts(scan_uri, part)
        difference = find_difference(scan_uri, str(part), options, written)
        if difference:
            raise PointloomError(
                f"the labelled copy of {scan_uri!r} would differ in {difference}; nothing was "
                "written, please report this scan."
            )
    return counts


def _copy(
    scan_uri: str, reader: laspy.LasReader, part: Path, compress: bool, codes: np.ndarray, confidence: np.ndarray,
    options: LabelOptions, measures: Mapping[AddedDimension, np.ndarray],
) -> tuple[list[str], np.ndarray]:  # fmt: skip
    """Write the copy; names of the extra dimensions that labelling wrote in it, and the points of each code."""
    # The codes of a whole scan decide, those that it keeps beside the new ones: all of them are below 32.
    upgraded = options.upgrade and int(codes.max(initial=0)) > LAST_SHORT_CODE
    added = [extra_dimensions.CONFIDENCE, *measures]
    num_measured = len(added)
    if options.keep_original:
        added.append(ORIGINAL)
    header, names = _labelled_header(upgrade(reader.header) if upgraded else deepcopy(reader.header), added)
    # Of a cloud that is labelled again, what was delivered at first is what counts.
    keep = options.keep_original and names[-1] not in set(reader.header.point_format.dimension_names)
    # EVLRs are read before the points: afterwards a LAZ reader stands somewhere else.
    evlrs = [evlr for evlr in (reader.evlrs or []) if type(evlr).__name__ not in REWRITTEN_VLRS]
    at, counts = 0, np.zeros(256, np.int64)
    with laspy.open(str(part), mode="w", header=header, do_compress=compress) as writer:
        for chunk in iterate_chunks(scan_uri, reader):
            record = laspy.ScaleAwarePointRecord.zeros(len(chunk), header=header)
            copy_points(chunk, record)
            now = slice(at, at + len(chunk))
            before = np.asarray(chunk.classification)
            after = options.new_codes(before, codes[now], confidence[now])
            counts += np.bincount(after, minlength=256)
            record.classification = after
            record.array[names[0]] = np.rint(confidence[now] / CONFIDENCE_STEP)
            for name, values in zip(names[1:num_measured], measures.values(), strict=True):
                record.array[name] = values[now]
            if keep:
                record.array[names[-1]] = before
            writer.write_points(record)
            at += len(chunk)
        if evlrs:
            writer.write_evlrs(laspy.vlrs.vlrlist.VLRList(evlrs))
    return names[:num_measured], counts


def _labelled_header(
    header: laspy.LasHeader, added: Sequence[AddedDimension]
) -> tuple[laspy.LasHeader, list[str]]:
    """The copy's header, and the names that the added dimensions have in it."""
    for name in REWRITTEN_VLRS[1:]:
        header.vlrs.extract(name)
    if header.version.minor == 0:
        # laspy writes no 1.0; its records are those of 1.1, and the version byte is put back afterwards.
        header.version = laspy.header.Version(1, 1)
    return header, [place(header, dimension) for dimension in added]


def _copy_raw_parts(scan_uri: str, part: Path) -> None:
    """Bring along what laspy does not: impossible creation dates, version 1.0, waveform packets inside the file."""
    with storage.open_input(scan_uri) as stream, open(part, "r+b") as copy:
        head, new = stream.read(375), copy.read(375)
        upgraded = (head[104] ^ new[104]) & 0x3F
        identity = bytearray(head[_IDENTITY])
        if upgraded:
            identity[_VERSION] = new[_IDENTITY][_VERSION]
            # Whether WKT says the CRS is the only bit that differs.
            identity[_ENCODING.start] |= new[_IDENTITY][_ENCODING.start] & _WKT_BIT
        copy.seek(_IDENTITY.start)
        copy.write(identity)
        at = struct.unpack_from("<Q", head, _WAVEFORM_FIELD)[0] if head[25] >= 3 else 0
        if not 0 < at < stream.size():
            return
        if head[25] == 3:
            # LAS 1.3 keeps the one EVLR it allows at the end of the file.
            stream.seek(at)
            start = copy.seek(0, 2)
            while piece := stream.read(4 << 20):
                copy.write(piece)
            if upgraded:
                copy.seek(_EVLRS_FIELD)
                copy.write(struct.pack("<QI", start, 1))
        else:
            start = _find_evlr(copy, _WAVEFORM_EVLR)
        copy.seek(_WAVEFORM_FIELD)
        copy.write(struct.pack("<Q", start))


def _find_evlr(stream: Any, wanted: tuple[str, int]) -> int:
    """Byte offset of an EVLR in a LAS 1.4 file, 0 where there is none."""
    stream.seek(_EVLRS_FIELD)
    at, count = struct.unpack("<QI", stream.read(12))
    for _ in range(count):
        stream.seek(at)
        _, user, record, length = struct.unpack("<H16sHQ", stream.read(28))
        if (user.split(b"\0")[0].decode(), record) == wanted:
            return at
        at += 60 + length
    return 0
