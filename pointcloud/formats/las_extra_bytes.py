"""The extra bytes of LAS points and the records that describe them (LAS 1.4 R16, table 24).

Files in the wild describe them in several records, in an EVLR, or in none; with empty names, the same name twice, or
that of a standard dimension; in any encoding. laspy reads one record and refuses such names. Here every byte gets a
dimension with a name of its own, and the descriptors are kept as they are stored.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import laspy
import numpy as np
from laspy.point.dims import OLD_LASPY_NAMES
from laspy.vlrs.known import ExtraBytesStruct

from pointcloud.formats.las_raw import EXTRA_BYTES, read_head, read_records
from pointcloud.storage import files

DESCRIPTOR_BYTES = 192
MOST_DESCRIPTORS = 65_535 // DESCRIPTOR_BYTES
"""As many descriptors as the data of one VLR can hold."""
_NAME_BYTES = 32
_UNDESCRIBED = "ExtraBytes"
_MOST_UNDESCRIBED = 255  # a descriptor of untyped bytes has one byte for their number
_LAST_TYPE = 30
_COMPRESSED_BITS = 0xC0


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtraBytes:
    """The descriptors of a file's extra bytes.

    Attributes:
        descriptors: 192 bytes each, in the order of the bytes that they describe; none where the records describe
            more bytes than a point has, or types that LAS does not define.
        num_records: VLRs and EVLRs that the descriptors were read from.
        left_out: whether the records hold anything that is not in `descriptors`.
        num_undescribed: bytes at the end of a point that no descriptor describes.
    """

    descriptors: tuple[bytes, ...]
    num_records: int
    left_out: bool
    num_undescribed: int


def read_extra_bytes(stream: Any) -> ExtraBytes:
    """Read what a LAS or LAZ file says of its extra bytes.

    Args:
        stream: the file, open for reading bytes; its position changes.

    Raises:
        struct.error: the file ends within its records.
        LaspyException: a point format that LAS does not define.
    """
    head = read_head(stream)
    format_id, record_length = struct.unpack_from("<BH", head, 104)
    num_extra = record_length - laspy.PointFormat(format_id & ~_COMPRESSED_BITS).size
    records = [
        r for extended in (False, True) for r in read_records(stream, extended) if r.name == EXTRA_BYTES
    ]
    stored = b"".join(record.data(stream) for record in records)
    ends = range(DESCRIPTOR_BYTES, len(stored) + 1, DESCRIPTOR_BYTES)
    descriptors = [stored[end - DESCRIPTOR_BYTES : end] for end in ends]
    sizes = [_size(descriptor) for descriptor in descriptors]
    if any(size is None for size in sizes) or sum(filter(None, sizes)) > num_extra:
        descriptors, sizes = [], []
    used = tuple(descriptor for descriptor, size in zip(descriptors, sizes, strict=True) if size)
    return ExtraBytes(
        descriptors=used,
        num_records=len(records),
        left_out=len(stored) > len(used) * DESCRIPTOR_BYTES,
        num_undescribed=num_extra - sum(filter(None, sizes)),
    )


def copy_descriptors(scan_uri: str, copy_path: Path) -> None:
    """Put a scan's descriptors, as they are stored, in a copy that has the same dimensions first.

    Args:
        copy_path: a local LAS or LAZ file, whose descriptors laspy has written in its own words.
    """
    with files.open_input(scan_uri) as stream, open(copy_path, "r+b") as copy:
        stored = read_extra_bytes(stream).descriptors
        for record in read_records(copy) if stored else ():
            if record.name == EXTRA_BYTES:
                copy.seek(record.at + len(record.head))
                copy.write(b"".join(stored))


def describe_points(point_format: laspy.PointFormat, extra_bytes: ExtraBytes) -> None:
    """Replace the extra dimensions of a point format by those of a file, each with a name of its own."""
    point_format.dimensions = list(point_format.standard_dimensions)
    taken = {*point_format.dimension_names, *(point_format.dtype().names or ()), *"xyz", *OLD_LASPY_NAMES}
    for params in [*map(_params, extra_bytes.descriptors), *_undescribed(extra_bytes.num_undescribed)]:
        params.name = _free_name(params.name, taken)
        taken.add(params.name)
        point_format.add_extra_dimension(params)


def _size(descriptor: bytes) -> int | None:
    """Bytes of a point that a descriptor describes; None for a type that LAS does not define."""
    struct_ = ExtraBytesStruct.from_buffer_copy(descriptor)
    return struct_.dtype().itemsize if struct_.data_type <= _LAST_TYPE else None


def _params(descriptor: bytes) -> laspy.ExtraBytesParams:
    described = ExtraBytesStruct.from_buffer_copy(descriptor)
    num = described.num_elements()
    # Of untyped bytes the options are their number, and no flags.
    scale, offset = (described.scale, described.offset) if described.data_type else (None, None)
    if any(values is not None and not np.isfinite(values[:num]).all() for values in (scale, offset)):
        scale = offset = None  # with these a value would be NaN; the stored one is used
    if scale is not None or offset is not None:
        scale = np.ones(num) if scale is None else np.array(scale)
        offset = np.zeros(num) if offset is None else np.array(offset)
    return laspy.ExtraBytesParams(
        _text(described.name), described.dtype(), _text(described.description), offset, scale
    )


def _undescribed(num_bytes: int) -> list[laspy.ExtraBytesParams]:
    sizes = [min(_MOST_UNDESCRIBED, num_bytes - at) for at in range(0, num_bytes, _MOST_UNDESCRIBED)]
    return [laspy.ExtraBytesParams(_UNDESCRIBED, f"{size}u1", "Un-registered ExtraBytes") for size in sizes]


def _text(stored: bytes) -> str:
    """Stored text, cut so that UTF-8 needs no more bytes than LAS gives it."""
    try:
        text = stored.decode()
    except UnicodeDecodeError:
        text = stored.decode("latin-1")
    return _cut(text, _NAME_BYTES)


def _cut(text: str, num_bytes: int) -> str:
    return text.encode()[:num_bytes].decode(errors="ignore")


def _free_name(name: str, taken: Collection[str]) -> str:
    name = name or _UNDESCRIBED
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{_cut(name, _NAME_BYTES - 1 - len(str(number)))}_{number}"
    return free
