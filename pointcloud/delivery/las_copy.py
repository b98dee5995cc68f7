"""Writing the labelled cloud: the scan again, every byte of it, with other classes and what is known of them.

Before a file takes its final name it is read back and compared with the scan.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import laspy
import numpy as np

from pointcloud.delivery import extra_dimensions
from pointcloud.delivery.extra_dimensions import ORIGINAL, AddedDimension, place
from pointcloud.delivery.proof import DifferenceError, Written, prove
from pointcloud.errors import PointloomError, ScanError
from pointcloud.formats import las, ply
from pointcloud.formats.las import LAZ_BACKENDS, iterate_chunks, open_scan
from pointcloud.formats.las_point_formats import LAST_SHORT_CODE, copy_points, has_short_codes, upgrade
from pointcloud.formats.las_raw import as_stored, copy_raw_parts, staged_waveforms
from pointcloud.formats.reader import SUFFIXES
from pointcloud.labelling.options import CONFIDENCE_STEP, LabelOptions
from pointcloud.labels import LabelScheme
from pointcloud.storage import files

CONFIDENCE = extra_dimensions.CONFIDENCE.name
_OF_STORING = ("LasZipVlr", "CopcInfoVlr", "CopcHierarchyVlr")  # as laspy calls them


def output_name(name: str, format: str = "same") -> str:
    """The labelled cloud's name for a scan's name: the same for LAS, LAZ and PLY, else PLY, as for a room.

    A COPC file comes back as plain LAZ: its points are ordered by its octree and its index would be wrong for any
    other writer; the order of points is kept, the index is not.
    """
    if name.lower().endswith(".copc.laz"):
        name = name[: -len(".copc.laz")] + ".laz"
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    if format == "same" and suffix in (*las.SUFFIXES, *ply.SUFFIXES):
        return name
    # Nothing else is cut off: a room is a folder, which may have a dot in its name.
    return f"{name[: len(name) - len(suffix)]}.{'ply' if format == 'same' else format}"


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
) -> Written:
    """Copy a scan with new class codes, and the file of its waveform packets where that lies beside it.

    Args:
        scan_uri: a LAS or LAZ scan of P points.
        out_uri: where the copy appears once it is complete and proven; LAZ when it ends in .laz.
        codes: (P,) uint8, the predicted classification.
        confidence: (P,) float in [0, 1], written as an extra dimension in steps of 0.01.
        options: which points may change, what is kept of the delivered classes, and whether the point format may be
            a newer one; None: the defaults.
        measures: further extra dimensions, (P,) uint8 each, in the steps of the dimension.

    Returns:
        The number of points written with each class code, and the proof that all else is the scan's.

    Raises:
        ScanError: the scan cannot be read, or its points are not P.
        PointloomError: the copy differs from the scan (nothing is written then).
    """
    options = options or LabelOptions()
    with files.staged(out_uri) as part:
        with open_scan(scan_uri) as reader:
            if reader.header.point_count != len(codes):
                raise ScanError(
                    f"scan {scan_uri!r} has {reader.header.point_count} points, expected {len(codes)}."
                )
            compress = out_uri.lower().endswith(".laz")
            written, counts = _copy(
                scan_uri, reader, part, compress, codes, confidence, options, measures or {}
            )
        copy_raw_parts(scan_uri, part)
        try:
            with staged_waveforms(scan_uri, out_uri) as waveforms:
                proof = prove(scan_uri, str(part), options, written, waveforms)
        except DifferenceError as error:
            raise PointloomError(
                f"the labelled copy of {scan_uri!r} would differ in {error}; nothing was "
                "written, please report this scan."
            ) from error
    return Written(counts, proof)


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
    header.vlrs = as_stored(scan_uri, header.vlrs)
    # EVLRs are read before the points: afterwards a LAZ reader stands somewhere else.
    evlrs = as_stored(
        scan_uri, [e for e in (reader.evlrs or []) if type(e).__name__ not in _OF_STORING], extended=True
    )
    at, counts = 0, np.zeros(256, np.int64)
    with laspy.open(
        str(part), mode="w", header=header, do_compress=compress, laz_backend=LAZ_BACKENDS
    ) as writer:
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
            writer.write_evlrs(evlrs)
    return names[:num_measured], counts


def _labelled_header(
    header: laspy.LasHeader, added: Sequence[AddedDimension]
) -> tuple[laspy.LasHeader, list[str]]:
    """The copy's header, and the names that the added dimensions have in it."""
    for name in _OF_STORING:
        header.vlrs.extract(name)
    if header.version.minor == 0:
        # laspy writes no 1.0; its records are those of 1.1, and the version byte is put back afterwards.
        header.version = laspy.header.Version(1, 1)
    return header, [place(header, dimension) for dimension in added]
