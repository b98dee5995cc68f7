"""Reading PLY (Turk 1994), binary of both byte orders and ASCII: trimesh reads the header, NumPy the vertices.

trimesh reads a file as a whole; here the vertices are taken a chunk at a time, so that memory does not grow with
the file. Names and types of the properties: see `columns`. Other elements, such as faces, are left out.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyproj import CRS
from pyproj.exceptions import CRSError
from trimesh.exchange.ply import _parse_header

from pointcloud.cloud import CHUNK_POINTS, Columns, ScanHeader
from pointcloud.formats import columns
from pointcloud.formats.decoding import reading, unreadable
from pointcloud.storage import files

SUFFIXES = (".ply",)
_EXPECTED = "a complete PLY file whose vertices have x, y and z"
_HEADER_BYTES = 1 << 16
_PIECE_BYTES = 1 << 20
_LINE_BYTES = 1 << 14
_CRS = re.compile(rb"^comment crs: (.+?)\r?$", re.MULTILINE)
_OURS = re.compile(r"comment labelled by Pointloom: (.+)")
_FORMAT = re.compile(rb"ply\r?\nformat (ascii|binary_little_endian|binary_big_endian) 1\.0\s*\n")


@dataclass(frozen=True)
class Remarks:
    """What a PLY header says besides its vertices.

    Attributes:
        comments: whole lines, those of `labelled` left out.
        elements: names of the other elements, such as face.
        labelled: properties of the vertices that an earlier labelling wrote.
    """

    comments: tuple[str, ...]
    elements: tuple[str, ...]
    labelled: frozenset[str]


@dataclass(frozen=True)
class _Layout:
    """Where the vertices are: `start` bytes into the file, for ASCII `skip` lines further."""

    encoding: str
    num_points: int
    dtype: np.dtype
    start: int
    skip: int


def read_header(uri: str) -> ScanHeader:
    """What a PLY header says; it has no bounds, and a CRS where `ply_writer` wrote it.

    Raises:
        ScanError: no PLY header, no vertices with x, y and z, or more promised than the file can hold.
    """
    with files.open_input(uri) as stream, reading(uri, _EXPECTED):
        layout = _layout(uri, stream)
        stream.seek(0)
        crs = _crs(stream.read(_HEADER_BYTES))
    names = layout.dtype.names or ()
    return ScanHeader(
        uri=uri,
        format=f"PLY {layout.encoding.replace('_', ' ')}",
        num_points=layout.num_points,
        bounds=None,
        crs=crs,
        attributes=columns.attributes_of(columns.match_names(names)),
        resolution=None,
        dimensions=names,
        crs_notes=() if crs is not None else ("PLY names no CRS; metres are assumed.",),
    )


def _crs(head: bytes) -> CRS | None:
    """The CRS in a comment of ours; None where there is none, or one that PROJ does not know."""
    found = _CRS.search(head.partition(b"end_header")[0])
    try:
        return CRS.from_wkt(found[1].decode()) if found else None
    except (CRSError, UnicodeDecodeError):
        return None


def read_remarks(uri: str) -> Remarks:
    """Comments and other elements of a PLY header. Raises as `read_header`."""
    with files.open_input(uri) as stream, reading(uri, _EXPECTED):
        _layout(uri, stream)
        stream.seek(0)
        head = stream.read(_HEADER_BYTES).partition(b"end_header")[0].decode()
    lines = [line.strip("\r") for line in head.split("\n")]
    comments = [line for line in lines if line.startswith(("comment", "obj_info"))]
    ours = [found for line in comments if (found := _OURS.fullmatch(line))]
    elements = [line.split()[1] for line in lines if line.startswith("element ")]
    return Remarks(
        comments=tuple(line for line in comments if not _OURS.fullmatch(line)),
        elements=tuple(name for name in elements if name != "vertex"),
        labelled=frozenset(name for found in ours for name in found[1].split()),
    )


def labelled_remark(names: Iterable[str]) -> str:
    """The comment that says which properties a labelling wrote, as `read_remarks` understands it."""
    return f"comment labelled by Pointloom: {' '.join(names)}"


def iterate_rows(uri: str) -> Iterator[np.ndarray]:
    """The vertices (n,) in the order of the file, every property by its name and in its type, chunk after chunk.

    Floats of a file in ASCII are 64-bit ones, so that no digit is lost.

    Raises:
        ScanError: as `read_header`, or a file that ends early or holds no numbers.
    """
    with files.open_input(uri) as stream, reading(uri, _EXPECTED):
        yield from _rows(uri, stream, _layout(uri, stream))


def iterate_dimension(uri: str, name: str) -> Iterator[np.ndarray]:
    """One property (n,) of the vertices as it is stored, chunk after chunk; nothing where there is no such.

    Raises:
        ScanError: as `iterate_rows`.
    """
    if name in read_header(uri).dimensions:
        for rows in iterate_rows(uri):
            yield rows[name]


def iterate_columns(header: ScanHeader, report: Callable[[str], None]) -> Iterator[Columns]:
    """The vertices in the order of the file. Raises ScanError for a file that ends early or holds no numbers."""
    with files.open_input(header.uri) as stream, reading(header.uri, _EXPECTED):
        layout = _layout(header.uri, stream)
        names = columns.match_names(layout.dtype.names or ())

        def tables() -> Iterator[columns.Table]:
            for rows in _rows(header.uri, stream, layout):
                yield {ours: rows[theirs] for ours, theirs in names.items()}

        types = {ours: layout.dtype[theirs] for ours, theirs in names.items()}
        yield from columns.iterate_columns(tables, types, report)


def _layout(uri: str, stream: pa.NativeFile) -> _Layout:
    head = stream.read(_HEADER_BYTES)
    encoding = _FORMAT.match(head)
    if not encoding or b"end_header" not in head:
        raise unreadable(uri, "it does not begin with a PLY header of version 1.0", _EXPECTED)
    header = io.BytesIO(head)
    # A private function of a pinned version: load_ply, which is public, takes nothing but whole files.
    try:
        elements, is_ascii, _ = _parse_header(header)
    except (LookupError, ValueError) as error:
        raise unreadable(uri, f"its header cannot be understood ({error})", _EXPECTED) from error
    start, skip = header.tell(), 0
    named = sum(len(element["properties"]) for element in elements.values())
    if named != sum(line.startswith(b"property ") for line in head[:start].splitlines()):
        raise unreadable(uri, "its header names a property twice", _EXPECTED)
    for name, element in elements.items():
        if element["length"] < 0:
            raise unreadable(uri, f"its header promises {element['length']} of {name!r}", _EXPECTED)
        if name == "vertex":
            break
        skip += element["length"]
        if not is_ascii:
            start += element["length"] * _row_type(uri, name, element["properties"]).itemsize
    else:
        raise unreadable(uri, "it has no element 'vertex'", _EXPECTED)
    dtype = _row_type(uri, "vertex", element["properties"])
    if is_ascii:  # text has the digits it has, whatever type its header names
        dtype = np.dtype([(n, "f8" if dtype[n].kind == "f" else dtype[n]) for n in dtype.names or ()])
    missing = [axis for axis in columns.AXES if axis not in columns.match_names(dtype.names or ())]
    if missing:
        raise unreadable(uri, f"its vertices have no {', '.join(missing)}", _EXPECTED)
    # A number in ASCII takes two bytes or more, the last one's end of line left out.
    room = stream.size() - start + is_ascii
    if element["length"] > room // (2 * len(dtype.names or ()) if is_ascii else dtype.itemsize):
        raise unreadable(
            uri,
            f"its header promises {element['length']} vertices, the file has {stream.size()} bytes",
            _EXPECTED,
        )
    return _Layout(encoding[1].decode(), element["length"], dtype, start, skip if is_ascii else 0)


def _row_type(uri: str, name: str, properties: dict[str, str]) -> np.dtype:
    lists = [key for key, kind in properties.items() if "$LIST" in kind]
    if lists:
        raise unreadable(uri, f"the property {lists[0]!r} of element {name!r} is a list", _EXPECTED)
    return np.dtype(list(properties.items()))


def _rows(uri: str, stream: pa.NativeFile, layout: _Layout) -> Iterator[np.ndarray]:
    """The vertices (n,) of the layout's type, chunk after chunk; coordinates in ASCII keep all their digits."""
    stream.seek(layout.start)
    lines = _lines(stream)
    if layout.encoding == "ascii":
        next(itertools.islice(lines, layout.skip, layout.skip), None)
    for start in range(0, layout.num_points, CHUNK_POINTS):
        count = min(CHUNK_POINTS, layout.num_points - start)
        if layout.encoding == "ascii":
            rows = _parse(uri, itertools.islice(lines, count), layout)
        else:
            content = stream.read(count * layout.dtype.itemsize)
            rows = np.frombuffer(
                content[: len(content) // layout.dtype.itemsize * layout.dtype.itemsize], layout.dtype
            )
        if len(rows) < count:
            raise unreadable(
                uri,
                f"its header promises {layout.num_points} vertices, the file holds {start + len(rows)}",
                _EXPECTED,
            )
        yield rows


def _lines(stream: pa.NativeFile) -> Iterator[bytes]:
    """The lines with something in them; one that never ends comes in pieces, which is refused later."""
    rest = b""
    while piece := stream.read(_PIECE_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line for line in lines if line.strip())
        if len(rest) > _LINE_BYTES:
            yield rest
            rest = b""
    if rest.strip():
        yield rest


def _parse(uri: str, lines: Iterator[bytes], layout: _Layout) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no lines left: the count is compared afterwards
        values = np.loadtxt(lines, comments=None, ndmin=2, encoding="latin-1")
    names = layout.dtype.names or ()
    if values.size and values.shape[1] != len(names):
        raise unreadable(uri, f"its lines have {values.shape[1]} numbers, not {len(names)}", _EXPECTED)
    rows = np.empty(len(values) if values.size else 0, layout.dtype)
    for name, column in zip(names, values.T if values.size else [], strict=False):
        kind = rows.dtype[name]
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            if not ((column >= limits.min) & (column <= limits.max)).all():
                raise unreadable(uri, f"its {name!r} goes beyond {limits.min} to {limits.max}", _EXPECTED)
        rows[name] = column
    return rows
