"""Reading what `segment` wrote, and scans with the truth, of whatever format: points, classes, how sure those are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyproj import CRS
from pyproj.exceptions import CRSError

from pointcloud import columns, ply, reader, scan, storage
from pointcloud.cloud import Cloud
from pointcloud.decoding import unreadable
from pointcloud.errors import ScanError
from pointcloud.extra_dimensions import CONFIDENCE
from pointcloud.header import CHUNK_POINTS

_PARQUET = ".parquet"
SUFFIXES = (*reader.SUFFIXES, _PARQUET)
_COPC = ".copc"
_EXPECTED = "a table of points with x, y, z and classification, as `segment --format parquet` writes it"


def stem_of(name: str) -> str:
    """A scan's name without its format: one scan has one stem as LAS, LAZ, COPC, PLY, room, …, and Parquet."""
    stem = name.rpartition(".")[0] if name.lower().endswith(SUFFIXES) else name
    return stem[: -len(_COPC)] if stem.lower().endswith(_COPC) else stem


def find_clouds(patterns: list[str]) -> list[storage.Source]:
    """The clouds that paths, folders and globs mean, rooms among them; Parquet files of anything else are left out.

    Raises:
        StorageError: nothing there, or two clouds with one name.
    """
    found = reader.find_scans(patterns, SUFFIXES)
    return [source for source in found if not _is_parquet(source.uri) or _holds_points(source.uri)]


def read_labelled(uri: str) -> tuple[Cloud, np.ndarray | None]:
    """A cloud with classes and the confidence of its points, (P,) in [0, 1], None where it has none.

    Raises:
        ScanError: unreadable, without points or without classes.
        StorageError: nothing there.
    """
    if _is_parquet(uri):
        cloud, confidence = _read_parquet(uri)
    else:
        cloud, confidence = reader.read_cloud(uri), None
        for of_format in (scan, ply):  # what is written; the others are never labelled clouds
            if uri.lower().endswith(of_format.SUFFIXES):
                confidence = of_format.read_dimension(uri, CONFIDENCE.name)
    if "classification" not in cloud.attributes:
        raise ScanError(f"cloud {uri!r} has no classification, which is what is scored; give one that has.")
    return cloud, confidence


def _is_parquet(uri: str) -> bool:
    return uri.lower().endswith(_PARQUET)


def _holds_points(uri: str) -> bool:
    """A file that cannot be read is taken for one that should: whoever reads it says what is wrong."""
    try:
        with storage.open_input(uri) as stream:
            names = columns.match_names(pq.read_schema(stream).names)
    except (pa.ArrowException, OSError):
        return True
    return {*columns.AXES, "classification"} <= names.keys()


def _read_parquet(uri: str) -> tuple[Cloud, np.ndarray | None]:
    try:
        with storage.open_input(uri) as stream:
            file = pq.ParquetFile(stream)
            there, names = file.schema_arrow.names, columns.match_names(file.schema_arrow.names)
            if not {*columns.AXES, "classification"} <= names.keys():
                raise unreadable(uri, f"its columns are {', '.join(there[:8])}", _EXPECTED)
            wanted = {*names.values(), CONFIDENCE.name} & {*there}
            table = file.read(columns=sorted(wanted))
            crs = _crs((file.schema_arrow.metadata or {}).get(b"pointloom.crs"))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise unreadable(uri, reason, _EXPECTED) from error
    if not len(table):
        raise ScanError(f"cloud {uri!r} holds no points; leave it out or label it again.")

    def tables() -> Iterator[columns.Table]:
        for start in range(0, len(table), CHUNK_POINTS):
            some = table.slice(start, CHUNK_POINTS)
            yield {ours: some[theirs].to_numpy() for ours, theirs in names.items()}

    types = {ours: np.dtype(table[theirs].type.to_pandas_dtype()) for ours, theirs in names.items()}
    chunks = list(columns.iterate_columns(tables, types, lambda _: None))
    attributes = {name: np.concatenate([more[name] for _, more in chunks]) for name in chunks[0][1]}
    confidence = table[CONFIDENCE.name].to_numpy() if CONFIDENCE.name in wanted else None
    return Cloud(np.concatenate([xyz for xyz, _ in chunks]), attributes, crs), confidence


def _crs(wkt: bytes | None) -> CRS | None:
    try:
        return CRS.from_wkt(wkt.decode()) if wkt else None
    except (CRSError, UnicodeDecodeError):
        return None
