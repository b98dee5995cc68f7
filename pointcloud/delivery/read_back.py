"""Reading labelled clouds and reference scans of any format: points, classes and their confidence.

Everything is read chunk by chunk: memory does not grow with a cloud.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyproj import CRS
from pyproj.exceptions import CRSError

from pointcloud.cloud import CHUNK_POINTS, Cloud
from pointcloud.delivery.extra_dimensions import CONFIDENCE, is_named_as
from pointcloud.errors import ScanError, first_line
from pointcloud.formats import columns, las, ply, reader
from pointcloud.formats.decoding import unreadable
from pointcloud.storage import files, inputs

_LOG = logging.getLogger(__name__)
_PARQUET = ".parquet"
SUFFIXES = (*reader.SUFFIXES, _PARQUET)
_COPC = ".copc"
_EXPECTED = "a table of points with x, y, z and classification, as `segment --format parquet` writes it"


def stem_of(name: str) -> str:
    """A scan's name without its format: one scan has one stem as LAS, LAZ, COPC, PLY, room, …, and Parquet."""
    stem = name.rpartition(".")[0] if name.lower().endswith(SUFFIXES) else name
    return stem[: -len(_COPC)] if stem.lower().endswith(_COPC) else stem


def find_clouds(patterns: list[str]) -> list[inputs.Source]:
    """The clouds that paths, folders and globs mean, rooms among them; Parquet files of anything else are left out.

    Those that are set aside for their names are left out too, and the log says so.

    Raises:
        StorageError: nothing there, or two clouds with one name.
    """
    sources = reader.find_scans(patterns, SUFFIXES)
    for source in sources:
        if source.fault:
            _LOG.warning("left out: %s", source.fault)
    usable = [source for source in sources if not source.fault]
    return [source for source in usable if not _is_parquet(source.uri) or _holds_points(source.uri)]


def iterate_classified(uri: str, crs: CRS | None = None) -> Iterator[Cloud]:
    """A cloud with classes in the order of the file, at most `CHUNK_POINTS` points at a time, none of them empty.

    Args:
        uri: the cloud.
        crs: is used in place of what the file says of its CRS; None: what the file says.

    Raises:
        ScanError: unreadable, without points or without classes.
        StorageError: nothing there.
    """
    for cloud in _iterate_parquet(uri, crs) if _is_parquet(uri) else reader.iterate_clouds(uri, crs=crs):
        if "classification" not in cloud.attributes:
            raise ScanError(f"cloud {uri!r} has no classification to score; give a cloud that has one.")
        yield cloud


def iterate_confidence(uri: str) -> Iterator[np.ndarray]:
    """Confidence of the classes of a cloud's points, (n,) in [0, 1], chunk after chunk; nothing where it has none.

    Chunks need not be those of `iterate_classified`; together they are as long.

    Raises:
        ScanError: the cloud cannot be read.
        StorageError: nothing there.
    """
    if _is_parquet(uri):
        with _parquet(uri) as file:
            name = _confidence_name(file.schema_arrow.names)
            for batch in file.iter_batches(CHUNK_POINTS, columns=[name]) if name else ():
                yield batch.column(0).to_numpy(zero_copy_only=False)
    elif uri.lower().endswith(las.SUFFIXES):
        with las.open_scan(uri) as scan:
            dimensions = list(scan.header.point_format.extra_dimensions)
        # A scan may have a confidence of its own; it is used where no labelling wrote one.
        own = [d.name for d in dimensions if CONFIDENCE.is_same(d)] or [CONFIDENCE.name]
        yield from las.iterate_dimension(uri, own[0])
    elif uri.lower().endswith(ply.SUFFIXES):
        name = _confidence_name(reader.read_header(uri).dimensions)
        if name:
            yield from ply.iterate_dimension(uri, name)


def _confidence_name(columns: Iterable[str]) -> str | None:
    """The column that labelling wrote: the longest such name, as it is made longer where a scan has one of its own."""
    names = [name for name in columns if is_named_as(name, CONFIDENCE)]
    return max(names, key=len, default=None)


def _is_parquet(uri: str) -> bool:
    return uri.lower().endswith(_PARQUET)


def _holds_points(uri: str) -> bool:
    """Whether a Parquet file is a table of points; yes if it cannot be read, as its reader then says what is wrong."""
    try:
        with files.open_input(uri) as stream:
            schema = pq.read_schema(stream)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return True
    if b"geo" in (schema.metadata or {}):  # GeoParquet: polygons to review, tiles
        return False
    return {*columns.AXES, "classification"} <= columns.match_names(schema.names).keys()


@contextmanager
def _parquet(uri: str) -> Iterator[pq.ParquetFile]:
    try:
        with files.open_input(uri) as stream, pq.ParquetFile(stream) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last for names of columns
        reason = first_line(error)
        raise unreadable(uri, reason, _EXPECTED) from error


def crs_of(uri: str) -> CRS | None:
    """The CRS that a cloud's file says.

    Raises:
        ScanError, StorageError: it cannot be read, or not be reached.
    """
    if not _is_parquet(uri):
        return reader.read_header(uri).crs
    with _parquet(uri) as file:
        return _crs((file.schema_arrow.metadata or {}).get(b"pointloom.crs"))


def _iterate_parquet(uri: str, crs: CRS | None) -> Iterator[Cloud]:
    with _parquet(uri) as file:
        schema, num_points = file.schema_arrow, file.metadata.num_rows
    names = columns.match_names(schema.names)
    if not {*columns.AXES, "classification"} <= names.keys():
        raise unreadable(uri, f"its columns are {', '.join(schema.names[:8])}", _EXPECTED)
    if not num_points:
        raise ScanError(f"cloud {uri!r} holds no points; leave it out or label it again.")

    def tables() -> Iterator[columns.Table]:
        with _parquet(uri) as file:
            for batch in file.iter_batches(CHUNK_POINTS, columns=sorted({*names.values()})):
                yield {ours: batch[theirs].to_numpy(zero_copy_only=False) for ours, theirs in names.items()}

    types = {ours: np.dtype(schema.field(theirs).type.to_pandas_dtype()) for ours, theirs in names.items()}
    crs, seen = crs or _crs((schema.metadata or {}).get(b"pointloom.crs")), 0
    try:
        for xyz, attributes in columns.iterate_columns(tables, types, lambda _: None):
            yield Cloud(xyz, attributes, crs)
            seen += len(xyz)
    except ScanError as error:
        raise (
            error if repr(uri) in str(error) else ScanError(f"cloud {uri!r}, from point {seen} on: {error}")
        ) from error


def _crs(wkt: bytes | None) -> CRS | None:
    try:
        return CRS.from_wkt(wkt.decode()) if wkt else None
    except (CRSError, UnicodeDecodeError):
        return None
