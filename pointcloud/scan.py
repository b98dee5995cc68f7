"""Reading scans: LAS and LAZ through laspy, in chunks; every way a file can be bad becomes one sentence."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import laspy
import lazrs
import numpy as np
import pyarrow as pa
from laspy.errors import LaspyException
from pyproj import CRS
from pyproj.exceptions import CRSError

from pointcloud import storage
from pointcloud.cloud import ATTRIBUTES, Cloud
from pointcloud.errors import PointloomError, ScanError

log = logging.getLogger(__name__)

SUFFIXES = (".las", ".laz")
CHUNK_POINTS = 1_000_000
_CHUNK_BYTES = 256 << 20  # a header may claim records of 65,535 bytes
_LAS_COLOURS = ("red", "green", "blue")


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Turn whatever a decoder throws at a bad file into a ScanError that names the file.

    lazrs panics with a PanicException, which derives from BaseException and cannot be imported by name.
    """
    try:
        yield
    except PointloomError:
        raise
    except (
        LaspyException, OSError, ValueError, struct.error, ArithmeticError, LookupError, MemoryError,
        SystemError,
    ) as error:  # fmt: skip
        raise _unreadable(uri, error) from error
    except BaseException as error:
        if type(error).__name__ in ("PanicException", "LazrsError"):
            raise _unreadable(uri, error) from error
        raise


def _unreadable(uri: str, error: BaseException) -> ScanError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return ScanError(
        f"cannot read scan {uri!r}: {reason}; expected a complete LAS or LAZ file: deliver it again or "
        "leave it out."
    )


@contextmanager
def open_scan(uri: str) -> Iterator[laspy.LasReader]:
    """A laspy reader over a scan in storage, its header checked against the file's size first.

    Raises:
        ScanError: not a LAS/LAZ file, or a header that promises more than the file can hold.
        StorageError: nothing there.
    """
    with storage.open_input(uri) as stream, reading(uri):
        _check_header(uri, stream.read(375), stream.size())
        stream.seek(0)
        with laspy.open(stream, closefd=False) as reader:
            if reader.header.are_points_compressed and reader.header.point_count:
                _check_compression(uri, stream, reader.header)
            yield reader


def _check_header(uri: str, head: bytes, file_size: int) -> None:
    """Refuse counts that the file has no room for, before a decoder believes them (LAS 1.4 R16, table 3)."""
    if len(head) < 227:
        raise _unreadable(uri, ValueError(f"the file has {file_size} bytes, less than a LAS header"))
    if head[:4] != b"LASF":
        raise _unreadable(uri, ValueError("it does not begin with the LAS signature 'LASF'"))
    header_size, points_at, num_vlrs = struct.unpack_from("<HII", head, 94)
    point_format, record_length, num_points = struct.unpack_from("<BHI", head, 104)
    room = min(points_at, file_size) - header_size
    if points_at > file_size or num_vlrs * 54 > max(room, 0):
        raise _unreadable(
            uri, ValueError(f"its header promises {num_vlrs} VLRs before byte {points_at} of {file_size}")
        )
    if head[25] >= 4 and len(head) == 375:
        evlrs_at, num_evlrs, num_points_14 = struct.unpack_from("<QIQ", head, 235)
        num_points = num_points_14 or num_points
        if num_evlrs and evlrs_at + num_evlrs * 60 > file_size:
            raise _unreadable(
                uri, ValueError(f"its header promises {num_evlrs} EVLRs after byte {evlrs_at} of {file_size}")
            )
    compressed = point_format & 0x80
    held = (file_size - points_at) // max(record_length, 1)
    if not compressed and num_points > held:
        raise _unreadable(uri, ValueError(f"its header promises {num_points} points, the file holds {held}"))


def _check_compression(uri: str, stream: pa.NativeFile, header: laspy.LasHeader) -> None:
    """Refuse what makes lazrs abort the whole process: it makes room for all that a chunk table promises.

    The point data begin with the table's place, or -1 when that stands in the file's last 8 bytes; the table
    with a version and the number of chunks, four bytes each (LASzip specification).
    """
    place, points_at, record_length = stream.tell(), header.offset_to_point_data, header.point_format.size
    record = header.vlrs[header.vlrs.index("LasZipVlr")].record_data
    num_items = struct.unpack_from("<H", record, 32)[0]
    unpacked = sum(struct.unpack_from("<H", record, 36 + 6 * item)[0] for item in range(num_items))
    if unpacked != record_length:
        raise _unreadable(
            uri,
            ValueError(f"its header promises points of {record_length} bytes, it holds points of {unpacked}"),
        )
    for at in (points_at, stream.size() - 8):
        stream.seek(at)
        table_at = struct.unpack("<q", stream.read(8))[0]
        if table_at >= 0:
            break
    if 0 <= table_at <= stream.size() - 8:
        stream.seek(table_at + 4)
        num_chunks, room = struct.unpack("<I", stream.read(4))[0], max(table_at - points_at, 0)
        # A chunk holds its first point as it is.
        if num_chunks > room // record_length + 1:
            raise _unreadable(
                uri, ValueError(f"its chunk table promises {num_chunks} chunks in {room} bytes")
            )
        if room:
            stream.seek(points_at)
            promised = sum(size for _, size in lazrs.read_chunk_table(stream, lazrs.LazVlr(record)))
            if promised > room:
                raise _unreadable(
                    uri, ValueError(f"its chunk table promises {promised} bytes, the file holds {room}")
                )
    stream.seek(place)


def iterate_chunks(uri: str, reader: laspy.LasReader) -> Iterator[laspy.ScaleAwarePointRecord]:
    """The scan's points, at most a million at a time.

    Raises:
        ScanError: damaged data, or fewer points than the header says.
    """
    expected, seen = reader.header.point_count, 0
    with reading(uri):
        size = max(1, min(CHUNK_POINTS, _CHUNK_BYTES // max(reader.header.point_format.size, 1)))
        for chunk in reader.chunk_iterator(size):
            seen += len(chunk)
            if len(chunk):
                yield chunk
    if seen != expected:
        raise _unreadable(uri, ValueError(f"its header promises {expected} points, the file holds {seen}"))


def scan_crs(uri: str, header: laspy.LasHeader) -> CRS | None:
    """The CRS of a scan, or None (said in the log) where it names none, or one that PROJ does not know."""
    try:
        crs = header.parse_crs()
    except (CRSError, LaspyException, ValueError) as error:
        log.warning("%s: its CRS cannot be understood (%s); metres are assumed.", uri, error)
        return None
    if crs is None:
        log.warning("%s: no CRS in the file; metres are assumed.", uri)
    return crs


def read_cloud(uri: str) -> Cloud:
    """A whole LAS or LAZ scan as a cloud.

    Raises:
        ScanError: unreadable, empty, or with coordinates that are not numbers.
    """
    with open_scan(uri) as reader:
        crs = scan_crs(uri, reader.header)
        names = [name for name in ATTRIBUTES if name in set(reader.header.point_format.dimension_names)]
        xyz: list[np.ndarray] = []
        columns: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for chunk in iterate_chunks(uri, reader):
            xyz.append(np.stack([chunk.x, chunk.y, chunk.z], axis=1).astype(np.float64, copy=False))
            for name in names:
                columns[name].append(np.asarray(chunk[name]))
    if not xyz:
        raise ScanError(f"scan {uri!r} holds no points; leave it out or deliver it again.")
    attributes = {name: np.concatenate(parts) for name, parts in columns.items()}
    # A colour format whose colours were never filled carries no colour.
    if "red" in attributes and not any(attributes[name].any() for name in _LAS_COLOURS):
        attributes = {name: v for name, v in attributes.items() if name not in _LAS_COLOURS}
    # LAS wants 16 bits; many scans come with 8, and 255 × 257 = 65535.
    elif "red" in attributes and max(attributes[name].max() for name in _LAS_COLOURS) <= 255:
        attributes |= {name: attributes[name] * np.uint16(257) for name in _LAS_COLOURS}
    try:
        return Cloud(np.concatenate(xyz), attributes, crs)
    except ScanError as error:
        raise ScanError(f"scan {uri!r}: {error}") from error


def read_dimension(uri: str, name: str) -> np.ndarray | None:
    """One dimension (P,) of a scan, scaled where it has a scale; None where the scan has no such."""
    with open_scan(uri) as reader:
        if name not in set(reader.header.point_format.dimension_names):
            return None
        parts = [np.asarray(chunk[name]) for chunk in iterate_chunks(uri, reader)]
    return np.concatenate(parts) if parts else np.empty(0)
