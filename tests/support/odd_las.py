"""LAS files with records as they come in the wild: any text, extra bytes described in any way."""

from __future__ import annotations

import struct
from pathlib import Path

import laspy
import numpy as np

_HEADER_SIZE, _RECORD_LENGTH = 375, 105
_POINT_SIZE = 30  # of point format 6
Record = tuple[bytes, int, bytes, bytes]
"""User, number, description and data of a VLR or EVLR."""


def descriptor(name: bytes, data_type: int = 9, options: int = 0, **fields: bytes) -> bytes:
    """192 bytes that describe extra bytes (LAS 1.4 R16, table 24)."""
    return (
        struct.pack("<2xBB32s4x", data_type, options, name)
        + fields.get("no_data", b"").ljust(24, b"\0")
        + bytes(48)
        + fields.get("scale", b"").ljust(24, b"\0")
        + fields.get("offset", b"").ljust(24, b"\0")
        + fields.get("description", b"").ljust(32, b"\0")
    )


def extra_bytes_record(*descriptors: bytes) -> Record:
    return b"LASF_Spec", 4, b"Extra Bytes Record", b"".join(descriptors)


def write_odd_las(
    path: Path,
    vlrs: list[Record],
    evlrs: list[Record] | None = None,
    num_extra: int = 0,
    num_points: int = 20,
    system: bytes = b"",
    software: bytes = b"",
) -> Path:
    """An uncompressed LAS 1.4 file of point format 6 with these records and so many random extra bytes a point."""
    rng = np.random.default_rng(0)
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.scales = np.full(3, 0.01)
    for start in range(0, num_extra, 255):
        header.add_extra_dim(laspy.ExtraBytesParams(f"e{start}", f"{min(255, num_extra - start)}u1"))
    points = laspy.ScaleAwarePointRecord.zeros(num_points, header=header)
    raw = points.array.view(np.uint8).reshape(num_points, -1)
    raw[:, :12:4] = rng.integers(0, 256, (num_points, 3))
    raw[:, 14] = 0x11  # the first of one return
    raw[:, 16] = 2
    raw[:, _POINT_SIZE:] = rng.integers(1, 200, (num_points, num_extra))
    with laspy.open(str(path), "w", header=header) as writer:
        writer.write_points(points)
    content = path.read_bytes()
    (points_at,) = struct.unpack_from("<I", content, 96)
    head = bytearray(content[:_HEADER_SIZE])
    body = content[points_at:]
    records = b"".join(
        struct.pack("<2x16sHH32s", user, number, len(data), text) + data for user, number, text, data in vlrs
    )
    extended = b"".join(
        struct.pack("<2x16sHQ32s", user, number, len(data), text) + data
        for user, number, text, data in evlrs or []
    )
    head[26:58], head[58:90] = system.ljust(32, b"\0"), software.ljust(32, b"\0")
    struct.pack_into("<II", head, 96, _HEADER_SIZE + len(records), len(vlrs))
    if evlrs:
        struct.pack_into("<QI", head, 235, _HEADER_SIZE + len(records) + len(body), len(evlrs))
    path.write_bytes(bytes(head) + records + body + extended)
    return path


def points_of(path: Path) -> np.ndarray:
    """(P, length) uint8, the stored points of an uncompressed file of this module or of a copy of one."""
    content = path.read_bytes()
    (points_at,) = struct.unpack_from("<I", content, 96)
    (length,) = struct.unpack_from("<H", content, _RECORD_LENGTH)
    (num,) = struct.unpack_from("<Q", content, 247)
    return np.frombuffer(content, np.uint8, num * length, points_at).reshape(num, length)
