"""Bytes of a LAS file that laspy computes, rewrites or does not read: header fields, records, waveform packets.

Byte offsets are those of LAS 1.4 R16, table 3; those below 227 are the same in every version.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laspy.vlrs.vlr import VLR

from pointcloud.errors import StorageError
from pointcloud.storage import files

EXTRA_BYTES = ("LASF_Spec", 4)
LASZIP = ("laszip encoded", 22204)
REWRITTEN = {EXTRA_BYTES, LASZIP, ("copc", 1), ("copc", 1000)}
"""Records that describe how points are stored: the copy has its own, or none."""
WAVEFORMS, WAVEFORM_FIELD = ("LASF_Spec", 65535), 227
LEGACY_COUNTS, BOUNDS, RETURNS = slice(107, 131), slice(179, 227), slice(255, 375)
WKT_BIT = 0x10
_HEAD_BYTES = 393  # LAS 1.5 has the longest header
_IDENTITY = slice(4, 94)  # source id to creation date
_ENCODING, _VERSION = slice(6, 8), slice(24, 26)
_GPS_RANGE = slice(375, 393)  # LAS 1.5
_EVLRS_FIELD = 235
_EXTERNAL_WAVEFORMS_BIT = 0x04
_PIECE_BYTES = 4 << 20
_ITEMS_AT = 32  # in the LASzip VLR: how many items there are, then type, size and version of each
_WAVEPACKET13 = 9  # the type of waveform packets of point formats 4 and 5


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRecord:
    """A VLR or EVLR where it lies in a file.

    Attributes:
        at: byte offset of its head.
        head: its 54 or 60 bytes: a reserved field, user, number, length, description.
        size: bytes of its data, which follow.
    """

    at: int
    head: bytes
    size: int

    @property
    def name(self) -> tuple[str, int]:
        """Its user and number."""
        user, number = struct.unpack_from("<16sH", self.head, 2)
        return user.split(b"\0")[0].decode("latin-1"), number

    def data(self, stream: Any) -> bytes:
        """The bytes of the record, without its header."""
        stream.seek(self.at + len(self.head))
        return stream.read(self.size)

    def digest(self, stream: Any) -> bytes:
        """BLAKE2b of its data, read in pieces: waveforms may be larger than memory."""
        return digest(stream, self.at + len(self.head), self.size)


def digest(stream: Any, at: int, size: int) -> bytes:
    """BLAKE2b of `size` bytes of a file from `at` on, 16 bytes; of fewer where the file ends before."""
    content_hash = hashlib.blake2b(digest_size=16)
    stream.seek(at)
    while size > 0 and (piece := stream.read(min(size, _PIECE_BYTES))):
        content_hash.update(piece)
        size -= len(piece)
    return content_hash.digest()


def read_head(stream: Any) -> bytes:
    """The header's bytes, up to 393, as far as no version has more."""
    stream.seek(0)
    return bytes(stream.read(_HEAD_BYTES))


def read_records(stream: Any, extended: bool = False) -> list[StoredRecord]:
    """The VLRs, or EVLRs, of a LAS or LAZ file in their order."""
    head = read_head(stream)
    if extended:
        at, count = struct.unpack_from("<QI", head, _EVLRS_FIELD) if head[25] >= 4 else (0, 0)
    else:
        at, _, count = struct.unpack_from("<HII", head, 94)
    length, form = (60, "<Q") if extended else (54, "<H")
    records = []
    for _ in range(count):
        stream.seek(at)
        head_of_record = bytes(stream.read(length))
        (size,) = struct.unpack_from(form, head_of_record, 20)
        records.append(StoredRecord(at=at, head=head_of_record, size=size))
        at += length + size
    return records


def kept_records(stream: Any, extended: bool = False) -> list[StoredRecord]:
    """The VLRs, or EVLRs, that a copy of a file has too: all but those that describe how its points are stored."""
    return [record for record in read_records(stream, extended) if record.name not in REWRITTEN]


def placeholders(scan_uri: str) -> list[VLR]:
    """Records for laspy to write in a copy, in place of the scan's own and of the same sizes.

    laspy writes no names but ASCII, and parsed records in its own words: `copy_raw_parts` puts the stored bytes there.
    """
    with files.open_input(scan_uri) as stream:
        return [VLR("", 0, "", bytes(record.size)) for record in kept_records(stream)]


def copy_raw_parts(scan_uri: str, copy_path: Path) -> None:
    """Bring along what laspy does not: header bytes, records as stored, EVLRs, waveform packets inside the file.

    Args:
        copy_path: a local LAS or LAZ file that begins with `placeholders`, has the scan's points and no EVLRs.
    """
    with files.open_input(scan_uri) as stream, open(copy_path, "r+b") as copy:
        head, new = read_head(stream), read_head(copy)
        upgraded = is_upgraded(head, new)
        identity = bytearray(head[_IDENTITY])
        if upgraded:
            identity[20:22] = new[_VERSION]
            # Whether WKT says the CRS is the only bit that differs.
            identity[2] |= new[_ENCODING][0] & WKT_BIT
        _write(copy, _IDENTITY.start, bytes(identity))
        # Bounds and counts of returns stay as delivered, right or wrong: no point of the copy is another one.
        _write(copy, BOUNDS.start, head[BOUNDS])
        if not upgraded:
            _write(copy, LEGACY_COUNTS.start, head[LEGACY_COUNTS])
        if new[25] >= 4:
            _write(copy, RETURNS.start, returns_of(head, new))
        if head[25] >= 5:
            _write(copy, _GPS_RANGE.start, head[_GPS_RANGE])
        _copy_vlrs(stream, copy)
        _copy_evlrs(stream, copy)
        _copy_waveforms(stream, copy, upgraded)
        _name_wavepackets(copy)


def _write(copy: Any, at: int, content: bytes) -> None:
    copy.seek(at)
    copy.write(content)


def is_upgraded(head: bytes, new: bytes) -> bool:
    """Whether two headers have another point format, compression aside."""
    return bool((head[104] ^ new[104]) & 0x3F)


def returns_of(head: bytes, new: bytes) -> bytes:
    """The 15 counts of returns that a LAS 1.4 copy of a scan has, from both headers.

    Before 1.4 there are five counts in four bytes each; they stay, and the others are those of the points.
    """
    if head[25] >= 4:
        return head[RETURNS]
    return struct.pack("<5Q", *struct.unpack_from("<5I", head, LEGACY_COUNTS.start + 4)) + new[295:375]


def _copy_vlrs(stream: Any, copy: Any) -> None:
    """Put the scan's records in their placeholders, reserved fields and what follows the ends of names included."""
    for before, after in zip(kept_records(stream), read_records(copy), strict=False):
        _write(copy, after.at, before.head + before.data(stream))


def _copy_evlrs(stream: Any, copy: Any) -> None:
    """Append the scan's EVLRs piece by piece: waveforms may be larger than memory."""
    records = kept_records(stream, extended=True)
    if not records:
        return
    start = copy.seek(0, 2)
    for record in records:
        copy.write(record.head)
        stream.seek(record.at + len(record.head))
        left = record.size
        while left > 0 and (piece := stream.read(min(left, _PIECE_BYTES))):
            copy.write(piece)
            left -= len(piece)
    _write(copy, _EVLRS_FIELD, struct.pack("<QI", start, len(records)))


def waveform_extent(stream: Any, minor: int) -> tuple[int, int]:
    """Where the waveform packets inside a file begin, and their bytes; 0 bytes where there are none.

    Args:
        minor: version of the scan they come from: in 1.3 their record reaches to the end of the file.
    """
    head = read_head(stream)
    (at,) = struct.unpack_from("<Q", head, WAVEFORM_FIELD) if head[25] >= 3 else (0,)
    stream.seek(0, 2)
    end = stream.tell()
    if not 0 < at < end:
        return at, 0
    if minor == 3:
        return at, end - at
    record = next((r for r in read_records(stream, True) if r.at == at), None)
    return at, len(record.head) + record.size if record else 0


def _copy_waveforms(stream: Any, copy: Any, upgraded: bool) -> None:
    minor = read_head(stream)[25]
    at, size = waveform_extent(stream, minor) if minor >= 3 else (0, 0)
    if not size:
        return
    if minor == 3:
        # LAS 1.3 keeps the one EVLR it allows at the end of the file.
        stream.seek(at)
        start = copy.seek(0, 2)
        while piece := stream.read(_PIECE_BYTES):
            copy.write(piece)
        if upgraded:
            _write(copy, _EVLRS_FIELD, struct.pack("<QI", start, 1))
    else:
        start = next((r.at for r in read_records(copy, True) if r.name == WAVEFORMS), 0)
    _write(copy, WAVEFORM_FIELD, struct.pack("<Q", start))


def _name_wavepackets(copy: Any) -> None:
    """Call lazrs's waveform packets of point formats 4 and 5 what they are: version 1 of LASzip's coding.

    lazrs 0.8 says 2, of which LASzip knows nothing; the coding is that of version 1, and lazrs reads it under both.
    """
    for record in read_records(copy):
        if record.name != LASZIP:
            continue
        data = record.data(copy)
        (num_items,) = struct.unpack_from("<H", data, _ITEMS_AT)
        for at in range(_ITEMS_AT + 2, _ITEMS_AT + 2 + 6 * num_items, 6):
            if struct.unpack_from("<H", data, at)[0] == _WAVEPACKET13:
                _write(copy, record.at + len(record.head) + at + 4, struct.pack("<H", 1))


def has_external_waveforms(head: bytes) -> bool:
    """Whether a header says that waveform packets are in a file beside the scan (.wdp)."""
    return bool(head[6] & _EXTERNAL_WAVEFORMS_BIT)


def waveform_file(uri: str) -> str:
    """The URI of the file with a scan's waveform packets, as LAS names it: the scan's with another ending."""
    stem = uri.rpartition(".")[0]
    return next((stem + end for end in (".wdp", ".WDP") if files.exists(stem + end)), f"{stem}.wdp")


@contextmanager
def staged_waveforms(scan_uri: str, out_uri: str) -> Iterator[str | None]:
    """Copy the file of waveform packets beside a scan; it takes its name when the `with` body ends without error.

    Yields:
        The URI of the copy; None where there is nothing to copy.
    """
    with files.open_input(scan_uri) as stream:
        external = has_external_waveforms(read_head(stream))
    source, target = waveform_file(scan_uri), f"{out_uri.rpartition('.')[0]}.wdp"
    if not external or not files.exists(source) or files.same(source, target):
        yield source if external and files.exists(source) else None
        return
    with files.staged(target) as local_path:
        with files.open_input(source) as stream, local_path.open("wb") as copy:
            while piece := stream.read(_PIECE_BYTES):
                copy.write(piece)
        if files.content_hash(source) != files.content_hash(str(local_path)):
            raise StorageError(f"{source!r} changed while it was copied; run it again.")
        yield str(local_path)
