"""Writing the labelled cloud of a LAS or LAZ scan: every byte of the scan, other classes, and added dimensions.

Before a file gets its final name it is read back and compared with the scan.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import laspy
import numpy as np
from laspy.errors import LaspyException

from pointcloud.delivery.extra_dimensions import CONFIDENCE as CONFIDENCE_DIMENSION
from pointcloud.delivery.extra_dimensions import ORIGINAL, AddedDimension, add_to_header, added_dimensions
from pointcloud.delivery.proof import DifferenceError, Written, prove
from pointcloud.errors import PointloomError, ScanError, one_line
from pointcloud.formats import las, ply
from pointcloud.formats.las import LAZ_BACKENDS, iterate_chunks, open_scan
from pointcloud.formats.las_extra_bytes import MOST_DESCRIPTORS, copy_descriptors
from pointcloud.formats.las_point_formats import (
    LAST_SHORT_CODE,
    added_records,
    copy_points,
    has_short_codes,
    upgrade,
)
from pointcloud.formats.las_raw import copy_raw_parts, placeholders, staged_waveforms
from pointcloud.formats.reader import SUFFIXES
from pointcloud.labelling.options import CONFIDENCE_STEP, LabelOptions
from pointcloud.labels import LabelScheme
from pointcloud.storage import files

CONFIDENCE = CONFIDENCE_DIMENSION.name
_LONGEST_POINT = 65_535  # bytes; the header has two for the length of a record


def output_name(name: str, file_format: str = "same") -> str:
    """The labelled cloud's name for a scan's name: the same for LAS, LAZ and PLY, else PLY, as for a room.

    A COPC file comes back as plain LAZ: its points are ordered by its octree and its index would be wrong for any
    other writer; the order of points is kept, the index is not.
    """
    if name.lower().endswith(".copc.laz"):
        name = name[: -len(".copc.laz")] + ".laz"
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    if file_format == "same" and suffix in (*las.SUFFIXES, *ply.SUFFIXES):
        return name
    # Nothing else is cut off: a room is a folder, which may have a dot in its name.
    return f"{name[: len(name) - len(suffix)]}.{'ply' if file_format == 'same' else file_format}"


def fits(dimensions: Collection[str], scheme: LabelScheme, options: LabelOptions) -> bool:
    """Whether the labelled cloud of a scan with these dimensions can hold the scheme's codes, under these options."""
    largest = max(label.code for label in scheme.classes)
    holds_bytes = options.upgrade or options.format in ("ply", "parquet")
    return holds_bytes or largest <= LAST_SHORT_CODE or not has_short_codes(dimensions)


def check_copy(
    uri: str, header: laspy.LasHeader, scheme: LabelScheme, options: LabelOptions | None = None
) -> None:
    """Check that a labelled LAS copy of a scan can hold what labelling writes.

    Args:
        uri: the scan, for the message.
        header: of the scan.

    Raises:
        ScanError: codes beyond the 5 bits of point formats 0 to 5, or no room for the added dimensions.
    """
    options = options or LabelOptions()
    check_codes(header, scheme, options)
    if options.format not in ("ply", "parquet"):
        _add_dimensions(uri, deepcopy(header), added_dimensions(scheme, options))


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
    noise: np.ndarray | None = None,
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
        noise: (P,) uint8, which points are noise and keep their class, see `LabelOptions.new_codes`.

    Returns:
        The number of points written with each class code, and the proof that all else is the scan's.

    Raises:
        ScanError: the scan cannot be read, its points are not P, or a LAS copy has no room for what is added.
        PointloomError: the copy differs from the scan (nothing is written then).
    """
    options = options or LabelOptions()
    with files.staged(out_uri) as local_path:
        with open_scan(scan_uri) as reader:
            if reader.header.point_count != len(codes):
                raise ScanError(
                    f"scan {scan_uri!r} has {reader.header.point_count} points, expected {len(codes)}."
                )
            with _writing(scan_uri):
                written, counts = _copy(
                    scan_uri,
                    reader,
                    local_path,
                    compress=out_uri.lower().endswith(".laz"),
                    codes=codes,
                    confidence=confidence,
                    options=options,
                    measures=measures or {},
                    noise=noise,
                )
        copy_raw_parts(scan_uri, local_path)
        copy_descriptors(scan_uri, local_path)
        try:
            with staged_waveforms(scan_uri, out_uri) as waveforms:
                proof = prove(scan_uri, str(local_path), options, written, waveforms)
        except DifferenceError as error:
            raise PointloomError(
                f"the labelled copy of {scan_uri!r} would differ in {error}; nothing was "
                "written, please report this scan."
            ) from error
        except ScanError as error:
            if str(local_path) not in str(error):
                raise
            raise PointloomError(
                f"the labelled copy of {scan_uri!r} cannot be read back; nothing was written, please report this "
                f"scan ({error})."
            ) from error
    return Written(counts, proof)


@contextmanager
def _writing(scan_uri: str) -> Iterator[None]:
    """Turn an error of the LAS writer into a sentence that does not blame the scan, which could be read."""
    try:
        yield
    except PointloomError:
        raise
    except (LaspyException, ValueError, LookupError, ArithmeticError, struct.error) as error:
        reason = one_line(error)
        raise ScanError(
            f"a labelled LAS copy cannot hold what scan {scan_uri!r} has ({reason}); write it with "
            "--format parquet."
        ) from error


def _copy(
    scan_uri: str,
    reader: laspy.LasReader,
    local_path: Path,
    *,
    compress: bool,
    codes: np.ndarray,
    confidence: np.ndarray,
    options: LabelOptions,
    measures: Mapping[AddedDimension, np.ndarray],
    noise: np.ndarray | None,
) -> tuple[list[str], np.ndarray]:
    """Write points and placeholders of the records.

    Returns:
        Names of the extra dimensions that hold confidence and measures, and (256,) the points of each code.
    """
    # The codes of a whole scan decide, those that it keeps beside the new ones: all of them are below 32.
    upgraded = options.upgrade and int(codes.max(initial=0)) > LAST_SHORT_CODE
    header = upgrade(reader.header) if upgraded else deepcopy(reader.header)
    if header.version.minor == 0:
        # laspy writes no 1.0; its records are those of 1.1, and the version byte is put back afterwards.
        header.version = laspy.header.Version(1, 1)
    names = _add_dimensions(scan_uri, header, (CONFIDENCE_DIMENSION, *measures))
    original = add_to_header(header, ORIGINAL) if options.keep_original else None
    # If a labelled cloud is labelled again, the classes first delivered count.
    keeps_original = original is not None and original not in set(reader.header.point_format.dimension_names)
    header.vlrs = [*placeholders(scan_uri), *added_records(reader.header, header)]
    # Text of any encoding: the stored bytes are put back afterwards.
    header.system_identifier = header.generating_software = ""
    start, counts = 0, np.zeros(256, np.int64)
    with laspy.open(
        str(local_path), mode="w", header=header, do_compress=compress, laz_backend=LAZ_BACKENDS
    ) as writer:
        for chunk in iterate_chunks(scan_uri, reader):
            record = laspy.ScaleAwarePointRecord.zeros(len(chunk), header=header)
            copy_points(chunk, record)
            now = slice(start, start + len(chunk))
            before = np.asarray(chunk.classification)
            after = options.new_codes(
                before, codes[now], confidence[now], noise=None if noise is None else noise[now]
            )
            counts += np.bincount(after, minlength=256)
            record.classification = after
            record.array[names[CONFIDENCE_DIMENSION]] = np.rint(confidence[now] / CONFIDENCE_STEP)
            for dimension, values in measures.items():
                record.array[names[dimension]] = values[now]
            if keeps_original:
                record.array[original] = before
            writer.write_points(record)
            start = now.stop
    return list(names.values()), counts


def _add_dimensions(
    uri: str, header: laspy.LasHeader, added: Iterable[AddedDimension]
) -> dict[AddedDimension, str]:
    """Add dimensions to a header; the name that each has there.

    Raises:
        ScanError: the header has no room to describe them, or a point record none for their bytes.
    """
    names = {dimension: add_to_header(header, dimension) for dimension in added}
    num = len(list(header.point_format.extra_dimensions))
    if num > MOST_DESCRIPTORS:
        raise ScanError(
            f"the labelled copy of scan {uri!r} would have {num} extra dimensions and LAS has room to describe "
            f"{MOST_DESCRIPTORS}; write it with --format parquet."
        )
    if header.point_format.size > _LONGEST_POINT:
        raise ScanError(
            f"a point of the labelled copy of scan {uri!r} would have {header.point_format.size} bytes and LAS "
            f"has room for {_LONGEST_POINT}; write it with --format parquet."
        )
    return names
