"""The header of a LAS file in a form that laspy can read.

laspy refuses names of records that are not UTF-8, and descriptions of extra bytes that it does not expect. It is shown
the file with those names blanked; afterwards its header gets the records and dimensions as the file has them.
"""

from __future__ import annotations

import codecs
import io
from typing import Any

import laspy
from laspy.vlrs.known import WktCoordinateSystemVlr, vlr_factory
from laspy.vlrs.vlr import VLR
from laspy.vlrs.vlrlist import VLRList

from pointcloud.formats.las_extra_bytes import describe_points, read_extra_bytes
from pointcloud.formats.las_raw import EXTRA_BYTES, StoredRecord, read_records

_CRS_USER, _WKT = "LASF_Projection", 2112
_USER_FIELD = slice(2, 18)  # in the head of a record
_LONGEST_CRS = 16 << 20  # bytes of an EVLR that is read for the CRS


class PatchedStream(io.RawIOBase):
    """A file, read only, some bytes of which are shown as others.

    Args:
        stream: the file.
        patches: byte offset -> the bytes shown from there on; they do not overlap.
    """

    def __init__(self, stream: Any, patches: dict[int, bytes]) -> None:
        super().__init__()
        self._stream = stream
        self._patches = patches

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset; the position from the beginning."""
        self._stream.seek(offset, whence)
        return int(self._stream.tell())

    def tell(self) -> int:
        """The position from the beginning."""
        return int(self._stream.tell())

    def read(self, size: int = -1) -> bytes:
        """The next bytes, all that are left for -1, patched."""
        start = self._stream.tell()
        content = self._stream.read(size) if size >= 0 else self._stream.read()
        for at, shown in self._patches.items():
            if start < at + len(shown) and at < start + len(content):
                patched = bytearray(content)
                low, high = max(at, start), min(at + len(shown), start + len(content))
                patched[low - start : high - start] = shown[low - at : high - at]
                content = bytes(patched)
        return content

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes, patched; how many there were."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def for_laspy(stream: Any) -> Any:
    """A file, at its beginning, as laspy can read its header and its points; see `complete`."""
    patches = _patches(stream)
    stream.seek(0)
    return PatchedStream(stream, patches) if patches else stream


def _patches(stream: Any) -> dict[int, bytes]:
    """Names of VLRs that laspy refuses: byte offset -> what to show in their place."""
    patches = {}
    for record in read_records(stream):
        user = record.head[_USER_FIELD]
        if record.name == EXTRA_BYTES:
            patches[record.at + _USER_FIELD.start] = bytes(len(user))
        elif not _is_utf8(user):
            patches[record.at + _USER_FIELD.start] = bytes(b if b < 0x80 else ord("?") for b in user)
    return patches


def complete(header: laspy.LasHeader, stream: Any) -> None:
    """Give a header that laspy has read the extra dimensions, the records' names and the CRS that the file has."""
    records = read_records(stream)
    typed = list(header.vlrs)
    describe_points(header.point_format, read_extra_bytes(stream))
    header.vlrs = VLRList(
        _as_named(stream, record, vlr)
        for record, vlr in zip(records, typed, strict=True)
        if record.name != EXTRA_BYTES
    )
    extended = [record for record in read_records(stream, extended=True) if record.name[0] == _CRS_USER]
    header.evlrs = VLRList(
        _as_named(stream, record, None) for record in extended if record.size <= _LONGEST_CRS
    )


def _as_named(stream: Any, record: StoredRecord, vlr: VLR | None) -> Any:
    """laspy's record, or one with the name and the text that the file has."""
    user, number = record.name
    if vlr is None or vlr.user_id != user:
        vlr = vlr_factory(VLR(user, number, "", record.data(stream)))
    if (user, number) == (_CRS_USER, _WKT) and not isinstance(vlr, WktCoordinateSystemVlr):
        return WktCoordinateSystemVlr(_text(record.data(stream)))
    return vlr


def _text(stored: bytes) -> str:
    """Text that is not UTF-8, which laspy takes alone: UTF-16 with a byte order mark, or Latin-1."""
    if stored.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return stored.decode("utf-16", "replace").split("\0")[0]
    return stored.split(b"\0")[0].decode("latin-1")


def _is_utf8(stored: bytes) -> bool:
    try:
        stored.split(b"\0")[0].decode()
    except UnicodeDecodeError:
        return False
    return True
