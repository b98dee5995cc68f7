"""The header of a PLY file (Turk 1994), read once and written.

Files in the wild end their lines as Windows or old Macintoshes do, have blank lines, trailing spaces, comments in any
encoding, names with spaces, and lines that should have been comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyproj import CRS
from pyproj.exceptions import CRSError

from pointcloud.formats.decoding import unreadable

EXPECTED = "a complete PLY file whose vertices have x, y and z"
TYPE_NAMES = {
    "i1": "char", "u1": "uchar", "i2": "short", "u2": "ushort", "i4": "int", "u4": "uint", "f4": "float",
    "f8": "double",
}  # fmt: skip
"""NumPy type -> as PLY files are written here."""
_TYPES = {name: kind for kind, name in TYPE_NAMES.items()} | {
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4",
    "float64": "f8", "int64": "i8", "uint64": "u8",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}
_PIECE_BYTES, _MOST_BYTES = 1 << 16, 1 << 22
_MAGIC = re.compile(rb"(?:\xef\xbb\xbf)?\s*ply[ \t]*(\r\n|\n|\r)", re.IGNORECASE)
_LAST_LINES = {
    b"\n": re.compile(rb"\n[ \t]*end_header[ \t]*\r?\n"),
    b"\r": re.compile(rb"\r[ \t]*end_header[ \t]*\r"),
}
_CRS = "comment crs: "
_LABELLED = "comment labelled by Pointloom: "


@dataclass(frozen=True, kw_only=True, slots=True)
class Property:
    """A property of an element.

    Attributes:
        name: UTF-8 where it is that, else as Latin-1.
        dtype: of a value, in the byte order of the file.
        count_dtype: of the number before the values of a list; None: a single value.
    """

    name: str
    dtype: np.dtype
    count_dtype: np.dtype | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Element:
    """An element: `count` rows of the same properties."""

    name: str
    count: int
    properties: tuple[Property, ...]

    @property
    def lists(self) -> tuple[str, ...]:
        """Names of the properties that are lists."""
        return tuple(p.name for p in self.properties if p.count_dtype is not None)

    @property
    def fewest_bytes(self) -> int:
        """Bytes that a row has at least, in a binary file."""
        return sum((p.dtype if p.count_dtype is None else p.count_dtype).itemsize for p in self.properties)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlyHeader:
    """What a PLY header says.

    Attributes:
        encoding: ascii, binary_little_endian or binary_big_endian.
        elements: in the order of their data.
        comments: whole lines of comments and obj_info; bytes that are not UTF-8 as surrogates, see `encode`.
        strange_lines: whole lines that begin with no word of the format.
        size: bytes of the header; the data follow.
    """

    encoding: str
    elements: tuple[Element, ...]
    comments: tuple[str, ...]
    strange_lines: tuple[str, ...]
    size: int

    @property
    def vertex(self) -> Element | None:
        """The element with the points; None where there is none."""
        return next((element for element in self.elements if element.name.lower() == "vertex"), None)

    @property
    def crs(self) -> CRS | None:
        """The CRS in a comment as `header_bytes` writes it; None if there is none, or one that PROJ does not know."""
        wkt = next((line[len(_CRS) :] for line in self.comments if line.startswith(_CRS)), None)
        try:
            return CRS.from_wkt(_text(encode(wkt))) if wkt else None
        except CRSError:
            return None

    @property
    def labelled(self) -> frozenset[str]:
        """Properties of the vertices that an earlier labelling wrote, as a comment says."""
        lines = [line for line in self.comments if line.startswith(_LABELLED)]
        return frozenset(name for line in lines for name in line[len(_LABELLED) :].split())

    @property
    def delivered_comments(self) -> tuple[str, ...]:
        """All comments but those that an earlier labelling wrote; strange lines as comments."""
        comments = [line for line in self.comments if not line.startswith(_LABELLED)]
        return *comments, *(f"comment {line}" for line in self.strange_lines)


def read_ply_header(uri: str, stream: Any) -> PlyHeader:
    """Read a PLY header.

    Args:
        uri: the file, for the message.
        stream: the file, at its beginning.

    Raises:
        ScanError: no PLY header, or one with counts or types that PLY does not have.
    """
    lines, size = _lines(uri, stream)
    encoding, elements = "", list[Element]()
    comments, strange = list[str](), list[str]()
    for line in lines:
        match line.split():
            case []:
                pass
            case [b"comment" | b"obj_info", *_]:
                comments.append(line.strip().decode(errors="surrogateescape"))
            case [b"format", name, b"1.0"] if name.decode("latin-1") in _ORDERS and not encoding:
                encoding = name.decode()
            case [b"format", *_]:
                break
            case [b"element", name, count]:
                elements.append(Element(name=_text(name), count=_count(uri, name, count), properties=()))
            case [b"property", *words] if elements and encoding:
                last = elements[-1]
                added = _property(uri, words, _ORDERS[encoding])
                elements[-1] = Element(name=last.name, count=last.count, properties=(*last.properties, added))
            case [b"element" | b"property", *_]:
                raise unreadable(uri, f"its header cannot be understood ({_text(line)})", EXPECTED)
            case _:
                strange.append(line.strip().decode(errors="surrogateescape"))
    if not encoding:
        raise unreadable(uri, "it does not begin with a PLY header of version 1.0", EXPECTED)
    return PlyHeader(
        encoding=encoding,
        elements=tuple(elements),
        comments=tuple(comments),
        strange_lines=tuple(strange),
        size=size,
    )


def header_bytes(dtype: np.dtype, num_points: int, crs: CRS | None, comments: Sequence[str]) -> bytes:
    """The header of a binary little-endian file of vertices.

    Args:
        dtype: one field for each property, of a type in `TYPE_NAMES`.
        crs: written as a comment of WKT, unless a comment names a CRS already.
        comments: whole lines.
    """
    properties = [f"property {TYPE_NAMES[dtype[name].str[1:]]} {name}" for name in dtype.names or ()]
    if crs is not None and not any(line.startswith(_CRS) for line in comments):
        comments = [*comments, f"{_CRS}{' '.join(crs.to_wkt().split())}"]
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        *comments,
        f"element vertex {num_points}",
        *properties,
        "end_header",
    ]
    return encode("\n".join(lines) + "\n")


def labelled_comment(names: Iterable[str]) -> str:
    """The comment that says which properties a labelling wrote, as `PlyHeader.labelled` understands it."""
    return f"{_LABELLED}{' '.join(names)}"


def encode(text: str) -> bytes:
    """The bytes of a header's text, those that were not UTF-8 too."""
    return text.encode(errors="surrogateescape")


def _lines(uri: str, stream: Any) -> tuple[list[bytes], int]:
    """The lines between the first and the last of a header, and the bytes up to the data."""
    head = stream.read(_PIECE_BYTES)
    magic = _MAGIC.match(head)
    if not magic:
        raise unreadable(uri, "it does not begin with a PLY header of version 1.0", EXPECTED)
    # Lines that end with CR LF are split at LF, and words have no CR at their ends.
    end_of_line = b"\r" if magic[1] == b"\r" else b"\n"
    last_line = _LAST_LINES[end_of_line]
    while not (last := last_line.search(head, magic.start(1))):
        piece = stream.read(_PIECE_BYTES) if len(head) < _MOST_BYTES else b""
        if not piece:
            raise unreadable(uri, "it does not begin with a PLY header that ends", EXPECTED)
        head += piece
    return head[magic.end() : last.start()].split(end_of_line), last.end()


def _count(uri: str, name: bytes, count: bytes) -> int:
    try:
        number = int(count)
    except ValueError as error:
        raise unreadable(uri, f"its header cannot be understood ({error})", EXPECTED) from error
    if number < 0:
        raise unreadable(uri, f"its header promises {number} of {_text(name)!r}", EXPECTED)
    return number


def _property(uri: str, words: list[bytes], order: str) -> Property:
    try:
        if words[0] == b"list":
            count, value, *name = words[1:]
            count_dtype = np.dtype(order + _TYPES[count.decode("latin-1").lower()])
        else:
            value, *name = words
            count_dtype = None
        dtype = np.dtype(order + _TYPES[value.decode("latin-1").lower()])
    except (LookupError, ValueError) as error:
        raise unreadable(uri, f"its header cannot be understood ({error})", EXPECTED) from error
    if not name:
        raise unreadable(uri, "its header has a property without a name", EXPECTED)
    return Property(name=_text(b" ".join(name)), dtype=dtype, count_dtype=count_dtype)


def _text(stored: bytes) -> str:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored.decode("latin-1")
