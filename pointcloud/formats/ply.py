"""Reading and writing PLY (Turk 1994), binary of both byte orders and ASCII, a chunk of vertices at a time.

Memory does not grow with the file. Names and types of the properties: see `columns`. Other elements, such as faces, are
left out.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyproj import CRS

from pointcloud.cloud import CHUNK_POINTS, Columns, ScanHeader
from pointcloud.errors import ScanError
from pointcloud.formats import columns
from pointcloud.formats.decoding import reading, unreadable
from pointcloud.formats.ply_header import (
    EXPECTED,
    TYPE_NAMES,
    Element,
    PlyHeader,
    header_bytes,
    read_ply_header,
)
from pointcloud.storage import files

SUFFIXES = (".ply",)
_PIECE_BYTES = 1 << 20
_LINE_BYTES = 1 << 14


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """Where the vertices are.

    Attributes:
        is_text: whether the file is ASCII.
        num_points: how many vertices there are.
        dtype: of a vertex, one field for each property; floats of 64 bits in text.
        start: byte offset where the vertices begin, in text the data.
        skip: lines of other elements after `start`, in text.
    """

    is_text: bool
    num_points: int
    dtype: np.dtype
    start: int
    skip: int


def read_header(uri: str) -> ScanHeader:
    """What a PLY header says; it has no bounds, and a CRS where Pointloom wrote the file.

    Raises:
        ScanError: no PLY header, no vertices with x, y and z, or more promised than the file can hold.
    """
    header, layout = _open(uri)
    names = layout.dtype.names or ()
    return ScanHeader(
        uri=uri,
        format=f"PLY {header.encoding.replace('_', ' ')}",
        num_points=layout.num_points,
        bounds=None,
        crs=header.crs,
        attributes=columns.attributes_of(columns.match_names(names)),
        resolution=None,
        dimensions=names,
        crs_notes=() if header.crs is not None else ("PLY files hold no CRS; metres are assumed.",),
    )


def read_whole_header(uri: str) -> PlyHeader:
    """All that a PLY header says, comments and other elements too.

    Raises:
        ScanError: as `read_header`.
    """
    return _open(uri)[0]


def iterate_rows(uri: str) -> Iterator[np.ndarray]:
    """The vertices (n,) in the order of the file, every property by its name and in its type, chunk after chunk.

    Floats of a file in ASCII are 64-bit ones, so that no digit is lost.

    Raises:
        ScanError: as `read_header`, or a file that ends early or holds anything but numbers.
    """
    with files.open_input(uri) as stream, reading(uri, EXPECTED):
        layout = _layout(uri, stream, read_ply_header(uri, stream))
        yield from _rows(uri, stream, layout, _chunks_of(layout.num_points))


def iterate_dimension(uri: str, name: str) -> Iterator[np.ndarray]:
    """One property (n,) of the vertices as it is stored, chunk after chunk; nothing where there is no such property.

    Raises:
        ScanError: as `iterate_rows`.
    """
    if name in read_header(uri).dimensions:
        for rows in iterate_rows(uri):
            yield rows[name]


def iterate_columns(header: ScanHeader, report: Callable[[str], None]) -> Iterator[Columns]:
    """The vertices in the order of the file.

    Args:
        header: of the scan.
        report: called with one sentence on what is changed on the way.

    Raises:
        ScanError: as `iterate_rows`.
    """
    layout = _open(header.uri)[1]
    names = columns.match_names(layout.dtype.names or ())

    def tables() -> Iterator[columns.Table]:
        for rows in iterate_rows(header.uri):
            yield {ours: rows[theirs] for ours, theirs in names.items()}

    types = {ours: layout.dtype[theirs] for ours, theirs in names.items()}
    yield from columns.iterate_columns(tables, types, report)


def write_ply(
    path: Path,
    num_points: int,
    chunks: Iterator[columns.Table],
    crs: CRS | None,
    comments: Sequence[str],
) -> list[int]:
    """Write points to a local file, binary and little-endian, with their CRS as a comment of WKT.

    Args:
        path: where to write.
        num_points: of all chunks together.
        chunks: with the same columns each.
        crs: of the points.
        comments: whole lines of the header; where one names a CRS, `crs` is not written.

    Returns:
        The points of each chunk.

    Raises:
        ScanError: a column of a type that PLY does not have.
    """
    sizes = []
    with path.open("wb") as stream:
        for number, chunk in enumerate(chunks):
            names = property_names(list(chunk))
            rows = np.empty(
                len(next(iter(chunk.values()))),
                [(n, v.dtype.newbyteorder("<")) for n, v in zip(names, chunk.values(), strict=True)],
            )
            if not number:
                large = [n for n in names if rows.dtype[n].str[1:] not in TYPE_NAMES]
                if large:
                    raise ScanError(
                        f"PLY has no numbers of the type of dimension {large[0]!r} ({rows.dtype[large[0]]}); write "
                        "Parquet, or LAZ."
                    )
                stream.write(header_bytes(rows.dtype, num_points, crs, comments))
            for name, values in zip(names, chunk.values(), strict=True):
                rows[name] = values
            stream.write(rows.tobytes())
            sizes.append(len(rows))
    return sizes


def read_written(path: Path, sizes: Iterable[int]) -> Iterator[columns.Table]:
    """What `write_ply` wrote, as many points at a time as it was given.

    Raises:
        ScanError: as `iterate_rows`.
    """
    uri = str(path)
    with files.open_input(uri) as stream, reading(uri, EXPECTED):
        layout = _layout(uri, stream, read_ply_header(uri, stream))
        for rows in _rows(uri, stream, layout, sizes):
            yield {name: rows[name] for name in layout.dtype.names or ()}


def property_names(names: Sequence[str]) -> list[str]:
    """Names as PLY can have them, which ends a name at white space; each once."""
    made: list[str] = []
    for name in names:
        plain = re.sub(r"\s+", "_", name)
        made.append(plain if plain not in made else f"{plain}_{len(made)}")
    return made


def _open(uri: str) -> tuple[PlyHeader, _Layout]:
    with files.open_input(uri) as stream, reading(uri, EXPECTED):
        header = read_ply_header(uri, stream)
        return header, _layout(uri, stream, header)


def _layout(uri: str, stream: pa.NativeFile, header: PlyHeader) -> _Layout:
    vertex = header.vertex
    if vertex is None:
        raise unreadable(uri, "it has no element 'vertex'", EXPECTED)
    if vertex.lists:
        raise unreadable(
            uri,
            f"the property {vertex.lists[0]!r} of element 'vertex' is a list",
            EXPECTED,
            "write its vertices without lists or leave it out",
        )
    names = [p.name for p in vertex.properties]
    if len(set(names)) < len(names):
        raise unreadable(uri, "its header names a property twice", EXPECTED)
    missing = [axis for axis in columns.AXES if axis not in columns.match_names(names)]
    if missing:
        raise unreadable(uri, f"its vertices have no {', '.join(missing)}", EXPECTED)
    is_text, size = header.encoding == "ascii", stream.size()
    # Text has the digits it has, whatever type its header names.
    dtype = np.dtype(
        [(p.name, "f8" if is_text and p.dtype.kind == "f" else p.dtype) for p in vertex.properties]
    )
    before = header.elements[: header.elements.index(vertex)]
    start = header.size if is_text else _skip(uri, stream, header.size, before)
    # A number in ASCII takes two bytes or more, the last one's end of line left out.
    room = size - start + is_text
    if vertex.count > room // (2 * len(names) if is_text else dtype.itemsize):
        raise unreadable(
            uri, f"its header promises {vertex.count} vertices, the file has {size} bytes", EXPECTED
        )
    if header.strange_lines and not is_text and (start + vertex.count * dtype.itemsize != size):
        # If such a line was meant as a property, all numbers would be read wrongly.
        raise unreadable(uri, f"its header cannot be understood ({header.strange_lines[0]})", EXPECTED)
    return _Layout(
        is_text=is_text,
        num_points=vertex.count,
        dtype=dtype,
        start=start,
        skip=sum(element.count for element in before) if is_text else 0,
    )


def _skip(uri: str, stream: pa.NativeFile, start: int, elements: Sequence[Element]) -> int:
    """Byte offset of what follows the rows of elements in a binary file."""
    for element in elements:
        if start + element.count * element.fewest_bytes > stream.size():
            raise unreadable(
                uri,
                f"its header promises {element.count} of {element.name!r}, the file ends before",
                EXPECTED,
            )
        if element.lists:
            start = _skip_lists(uri, stream, start, element)
        else:
            start += element.count * element.fewest_bytes
    return start


def _skip_lists(uri: str, stream: pa.NativeFile, start: int, element: Element) -> int:
    """Byte offset of what follows rows of different lengths, which are looked at one by one."""
    stream.seek(start)
    content, at = b"", 0

    def move(num_bytes: int) -> int:
        """Move beyond the next bytes; where they began in the content."""
        nonlocal content, at, start
        while at + num_bytes > len(content):
            piece = stream.read(max(_PIECE_BYTES, num_bytes))
            if not piece:
                raise unreadable(uri, f"the file ends within its element {element.name!r}", EXPECTED)
            start, content, at = start + at, content[at:] + piece, 0
        at += num_bytes
        return at - num_bytes

    for _ in range(element.count):
        for prop in element.properties:
            num = 1
            if prop.count_dtype is not None:
                kind = prop.count_dtype
                where = move(kind.itemsize)
                num = int(np.frombuffer(content, kind, 1, where)[0])
            if not 0 <= num * prop.dtype.itemsize <= stream.size():
                raise unreadable(uri, f"a list of its element {element.name!r} has {num} values", EXPECTED)
            move(num * prop.dtype.itemsize)
    return start + at


def _chunks_of(num_points: int) -> Iterator[int]:
    for start in range(0, num_points, CHUNK_POINTS):
        yield min(CHUNK_POINTS, num_points - start)


def _rows(uri: str, stream: pa.NativeFile, layout: _Layout, sizes: Iterable[int]) -> Iterator[np.ndarray]:
    """The vertices (n,) of the layout's type, so many at a time; coordinates in ASCII keep all their digits."""
    stream.seek(layout.start)
    lines = _lines(stream)
    if layout.is_text:
        next(itertools.islice(lines, layout.skip, layout.skip), None)
    num_read = 0
    for count in sizes:
        if layout.is_text:
            rows = _parse(uri, itertools.islice(lines, count), layout)
        else:
            content = stream.read(count * layout.dtype.itemsize)
            rows = np.frombuffer(content, layout.dtype, len(content) // layout.dtype.itemsize)
        num_read += len(rows)
        if len(rows) < count:
            raise unreadable(
                uri, f"its header promises {layout.num_points} vertices, the file holds {num_read}", EXPECTED
            )
        yield rows


def _lines(stream: pa.NativeFile) -> Iterator[bytes]:
    """The lines with something in them; one that never ends comes in pieces, which is refused later."""
    rest = b""
    while piece := stream.read(_PIECE_BYTES):
        *lines, rest = (rest + piece).replace(b"\r", b"\n").split(b"\n")
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
        raise unreadable(uri, f"its lines have {values.shape[1]} numbers, not {len(names)}", EXPECTED)
    rows = np.empty(len(values) if values.size else 0, layout.dtype)
    for name, column in zip(names, values.T if values.size else [], strict=False):
        kind = rows.dtype[name]
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            if not ((column >= limits.min) & (column <= limits.max)).all():
                raise unreadable(uri, f"its {name!r} goes beyond {limits.min} to {limits.max}", EXPECTED)
        rows[name] = column
    return rows
