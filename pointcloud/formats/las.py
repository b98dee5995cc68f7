"""Reading LAS and LAZ through laspy, in chunks, after a check of the header against the size of the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from operator import or_

import laspy
import lazrs
import numpy as np
import pyarrow as pa
from laspy import DecompressionSelection

from pointcloud.cloud import ATTRIBUTES, CHUNK_POINTS, WITHHELD, Columns, ScanHeader
from pointcloud.compiling import compiled
from pointcloud.errors import ScanError
from pointcloud.formats import las_header
from pointcloud.formats.decoding import reading, unreadable
from pointcloud.formats.las_bounds import is_pointwise, sample, true_bounds
from pointcloud.formats.las_crs import crs_of_header
from pointcloud.storage import files

SUFFIXES = (".las", ".laz")
LAZ_BACKENDS = (laspy.LazBackend.LazrsParallel, laspy.LazBackend.Lazrs)
"""laspy would take any that is installed, and another where these refuse a file."""
_OLD_LAZ_BACKEND = laspy.LazBackend.Laszip
"""LASzip's own library, for what its versions before 2.0 wrote: lazrs needs chunks, which those did not have."""
UNTRUE_BOUNDS = "the bounds in its header are not those of its points, and are not used."
_CHUNK_BYTES = 256 << 20  # a header may claim records of 65,535 bytes


_ATTRIBUTES_ONLY = reduce(
    or_,
    (
        getattr(DecompressionSelection, name)
        for name in ("XY_RETURNS_CHANNEL", "Z", "CLASSIFICATION", "FLAGS", "INTENSITY", "RGB")
    ),
)
"""The layers of a LAZ 1.4 chunk that hold coordinates, `ATTRIBUTES` and `WITHHELD`; older formats have no layers."""


@contextmanager
def open_scan(uri: str, attributes_only: bool = False) -> Iterator[laspy.LasReader]:
    """A laspy reader over a scan in storage, its header checked against the file's size first.

    Args:
        attributes_only: leave compressed what a cloud cannot carry (GPS time, angles, …): what is read of it is no use.

    Raises:
        ScanError: not a LAS/LAZ file, or a header that promises more than the file can hold.
        StorageError: nothing there.
    """
    with files.open_input(uri) as stream:
        with reading(uri):
            reader = _open_reader(uri, stream, attributes_only)
        yield reader


def _open_reader(uri: str, stream: pa.NativeFile, attributes_only: bool) -> laspy.LasReader:
    _check_header(uri, stream.read(375), stream.size())
    reader = laspy.open(
        las_header.for_laspy(stream),
        closefd=False,
        laz_backend=LAZ_BACKENDS,
        read_evlrs=False,
        decompression_selection=_ATTRIBUTES_ONLY if attributes_only else DecompressionSelection.all(),
    )
    place = stream.tell()
    las_header.complete(reader.header, stream)
    stream.seek(place)
    if reader.header.are_points_compressed and reader.header.point_count:
        _check_compression(uri, stream, reader.header)
        if is_pointwise(reader.header):
            if not _OLD_LAZ_BACKEND.is_available():
                raise ScanError(
                    f"cannot read scan {uri!r}: it was compressed by a LASzip older than 2.0, which takes the package "
                    "laszip; run pip install laszip, or write the scan again with las2las or laszip."
                )
            reader.laz_backend = (_OLD_LAZ_BACKEND,)
    return reader


def _check_header(uri: str, head: bytes, file_size: int) -> None:
    """Refuse counts that the file has no room for, before a decoder believes them (LAS 1.4 R16, table 3)."""
    if len(head) < 227:
        raise unreadable(uri, f"the file has {file_size} bytes, less than a LAS header")
    if head[:4] != b"LASF":
        raise unreadable(uri, "it does not begin with the LAS signature 'LASF'")
    header_size, points_at, num_vlrs = struct.unpack_from("<HII", head, 94)
    point_format, record_length, num_points = struct.unpack_from("<BHI", head, 104)
    room = min(points_at, file_size) - header_size
    if points_at > file_size or num_vlrs * 54 > max(room, 0):
        raise unreadable(uri, f"its header promises {num_vlrs} VLRs before byte {points_at} of {file_size}")
    if head[25] >= 4 and len(head) == 375:
        evlrs_at, num_evlrs, num_points_14 = struct.unpack_from("<QIQ", head, 235)
        num_points = num_points_14 or num_points
        if num_evlrs and evlrs_at + num_evlrs * 60 > file_size:
            raise unreadable(
                uri, f"its header promises {num_evlrs} EVLRs after byte {evlrs_at} of {file_size}"
            )
    compressed = point_format & 0x80
    held = (file_size - points_at) // max(record_length, 1)
    if not compressed and num_points > held:
        raise unreadable(uri, f"its header promises {num_points} points, the file holds {held}")


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
        raise unreadable(
            uri, f"its header promises points of {record_length} bytes, it holds points of {unpacked}"
        )
    if is_pointwise(header):
        stream.seek(place)
        return
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
            raise unreadable(uri, f"its chunk table promises {num_chunks} chunks in {room} bytes")
        if room:
            stream.seek(points_at)
            promised = sum(size for _, size in lazrs.read_chunk_table(stream, lazrs.LazVlr(record)))
            if promised > room:
                raise unreadable(uri, f"its chunk table promises {promised} bytes, the file holds {room}")
    stream.seek(place)


def chunk_points(header: laspy.LasHeader) -> int:
    """How many points of a scan are decoded at once: `CHUNK_POINTS`, fewer where one has very many bytes."""
    return max(1, min(CHUNK_POINTS, _CHUNK_BYTES // max(header.point_format.size, 1)))


def iterate_chunks(
    uri: str, reader: laspy.LasReader, num_points: int | None = None
) -> Iterator[laspy.ScaleAwarePointRecord]:
    """The scan's points, chunk after chunk, none of them empty.

    Args:
        uri: the scan, for the message.
        reader: of the scan, before its first point.
        num_points: of each chunk but the last; None: as `chunk_points` has it.

    Raises:
        ScanError: damaged data, or fewer points than the header says.
    """
    expected, seen = reader.header.point_count, 0
    with reading(uri):
        for chunk in reader.chunk_iterator(num_points or chunk_points(reader.header)):
            seen += len(chunk)
            if len(chunk):
                yield chunk
    if seen != expected:
        raise unreadable(uri, f"its header promises {expected} points, the file holds {seen}")


def read_header(uri: str) -> ScanHeader:
    """What a LAS or LAZ header says, without bounds where its bounds cannot be those of the points.

    Raises:
        ScanError: as `open_scan`.
    """
    with files.open_input(uri) as stream, reading(uri):
        reader = _open_reader(uri, stream, attributes_only=False)
        header = reader.header
        kind = "LAZ" if header.are_points_compressed else "LAS"
        if any(vlr.user_id == "copc" for vlr in header.vlrs):
            kind = "COPC"
        bounds = true_bounds(stream, header)
        some = sample(stream, header) if bounds is None else bounds
        crs, crs_notes = crs_of_header(header, some if len(some) else None)
        return ScanHeader(
            uri=uri,
            format=f"{kind} {header.version}, point format {header.point_format.id}",
            num_points=header.point_count,
            bounds=bounds,
            crs=crs,
            attributes=_attributes(header.point_format),
            resolution=np.array(header.scales, np.float64),
            dimensions=tuple(header.point_format.dimension_names),
            notes=(UNTRUE_BOUNDS,) if bounds is None else (),
            crs_notes=crs_notes,
        )


def measure_bounds(uri: str) -> np.ndarray | None:
    """Bounds of all points of a scan, (2, 3) float64 in CRS units, which decodes them; None where one is not finite.

    Raises:
        ScanError: as `iterate_chunks`.
    """
    lowest, highest = np.full(3, np.inf), np.full(3, -np.inf)
    with open_scan(uri, attributes_only=True) as reader:
        for chunk in iterate_chunks(uri, reader):
            xyz = _coordinates(chunk)
            lowest, highest = np.minimum(lowest, xyz.min(axis=1)), np.maximum(highest, xyz.max(axis=1))
    bounds = np.array([lowest, highest])
    return bounds if np.isfinite(bounds).all() else None


def _attributes(point_format: laspy.PointFormat) -> tuple[str, ...]:
    """Those of `ATTRIBUTES` that points have; extra bytes of such a name are none unless they could be stored so."""
    fields = {
        dimension.name
        for dimension in point_format.dimensions
        if dimension.is_standard or (dimension.dtype in (np.uint8, np.uint16) and not dimension.is_scaled)
    }
    return tuple(name for name in ATTRIBUTES if name in fields)


def iterate_columns(header: ScanHeader) -> Iterator[Columns]:
    """The points of a scan in the order of the file, chunk after chunk, colours as they are stored.

    Damage in dimensions that a cloud does not hold is not noticed; it does no harm here.

    Raises:
        ScanError: as `iterate_chunks`.
    """
    with open_scan(header.uri, attributes_only=True) as reader:
        for chunk in iterate_chunks(header.uri, reader):
            yield columns_of(chunk, header)


def columns_of(points: laspy.ScaleAwarePointRecord, header: ScanHeader) -> Columns:
    """Scaled coordinates and attributes of decoded points, and the flag `WITHHELD` where one of them has it."""
    attributes = {name: np.asarray(points[name]) for name in header.attributes}
    withheld = np.asarray(points[WITHHELD])
    if withheld.any():
        attributes[WITHHELD] = withheld.astype(bool)
    return _coordinates(points).T, attributes


def _coordinates(points: laspy.ScaleAwarePointRecord) -> np.ndarray:
    """(3, n) float64: axis after axis in memory, so that whoever gathers or compares one axis reads nothing else."""
    xyz = np.empty((3, len(points)))
    records = points.array.view(np.uint8).reshape(len(points), -1)
    scaled_coordinates(records, np.asarray(points.scales), np.asarray(points.offsets), xyz)
    return xyz


def iterate_dimension(uri: str, name: str) -> Iterator[np.ndarray]:
    """One dimension (n,) of a scan, chunk after chunk, scaled where it has a scale; nothing where there is no such.

    Raises:
        ScanError: as `open_scan` and `iterate_chunks`.
    """
    with open_scan(uri) as reader:
        if name in set(reader.header.point_format.dimension_names):
            for chunk in iterate_chunks(uri, reader):
                yield np.asarray(chunk[name])


@compiled
def scaled_coordinates(records: np.ndarray, scales: np.ndarray, offsets: np.ndarray, xyz: np.ndarray) -> None:
    """Coordinates of LAS point records (P, bytes), which begin with X, Y and Z in four bytes each, into (3, P)."""
    for n in range(len(records)):
        for axis in range(3):
            number = np.uint32(0)
            for byte in range(4):
                number |= np.uint32(records[n, 4 * axis + byte]) << np.uint32(8 * byte)
            xyz[axis, n] = np.int32(number) * scales[axis] + offsets[axis]
