"""Small seeded files of the formats that nobody here writes: COPC, PLY, E57; records of LAS. NumPy writes its own."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import laspy
import lazrs
import numpy as np
from laspy.vlrs.vlr import VLR

from pointcloud.cloud import Cloud

_PLY_TYPES = {"f8": "double", "f4": "float", "u1": "uchar", "i1": "char", "u2": "ushort", "i2": "short"}
_PLY_TYPES |= {"u4": "uint", "i4": "int"}
_HEADER_SIZE, _VLR_HEADER_SIZE, _COPC_INFO_SIZE = 375, 54, 160


def ply_bytes(rows: np.ndarray, encoding: str = "binary_little_endian", faces: int = 0) -> bytes:
    """A PLY file of a structured array; its faces are triangles, as a mesher leaves them."""
    lines = ["ply", f"format {encoding} 1.0", "comment made for a test", f"element vertex {len(rows)}"]
    for name in rows.dtype.names or ():
        lines.append(f"property {_PLY_TYPES[rows.dtype[name].str[1:]]} {name}")
    lines += [f"element face {faces}", "property list uchar int vertex_indices"] if faces else []
    header = ("\n".join([*lines, "end_header"]) + "\n").encode()
    if encoding == "ascii":
        text = [" ".join(repr(value) for value in row) for row in rows.tolist()]
        return header + "\n".join([*text, *["3 0 1 2"] * faces, ""]).encode()
    order = "<" if encoding == "binary_little_endian" else ">"
    triangles = struct.pack(f"{order}B3i", 3, 0, 1, 2) * faces
    return header + rows.astype(rows.dtype.newbyteorder(order)).tobytes() + triangles


def write_e57(
    path: Path, clouds: list[tuple[np.ndarray, np.ndarray, np.ndarray]], **fields: np.ndarray
) -> Path:
    """An E57 file of scans, each (points (n, 3), quaternion (4,), translation (3,)), with the same fields in all."""
    import pye57

    with pye57.E57(str(path), "w") as file:
        for points, rotation, translation in clouds:
            data = dict(zip(("cartesianX", "cartesianY", "cartesianZ"), points.T.copy(), strict=True))
            file.write_scan_raw({**data, **fields}, rotation=rotation, translation=translation)
    return path


def write_copc(path: Path, cloud: Cloud, depth: int = 2, extra_page: bool = True, user: bytes = b"") -> Path:
    """A COPC 1.0 file: an octree of `depth` levels below the root over points with positive coordinates.

    Every point is in a node of the lowest level, but one in ten in the root. The nodes below x = half have a page
    of the hierarchy to themselves where `extra_page` is set. Where `user` is given, it has a VLR of that user.
    """
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.scales = np.full(3, 0.01)
    las = laspy.LasData(header)
    las.x, las.y, las.z = cloud.xyz.T
    las.classification = cloud.attributes["classification"]
    las.intensity = cloud.attributes["intensity"]
    size = float(np.ceil(cloud.xyz.max()))
    cell = np.floor(las.xyz / size * 2**depth).astype(int).clip(0, 2**depth - 1)
    keys = [(0, 0, 0, 0) if n % 10 == 0 else (depth, *map(int, c)) for n, c in enumerate(cell)]

    vlr = lazrs.LazVlr.new_for_compression(6, 0, True)
    record = vlr.record_data()
    own = struct.pack("<H16sHH32s", 0, user, 7, 0, b"") if user else b""
    points_at = _HEADER_SIZE + 2 * _VLR_HEADER_SIZE + _COPC_INFO_SIZE + len(record) + len(own)
    body = io.BytesIO(b"\0" * points_at)
    body.seek(points_at)
    compressor = lazrs.LasZipCompressor(body, vlr)
    compressor.reserve_offset_to_chunk_table()
    entries: dict[tuple[int, ...], tuple[int, int, int]] = {}
    raw = las.points.array
    for key in sorted(set(keys)):
        members = np.array([k == key for k in keys])
        start = body.tell()
        compressor.compress_many(np.frombuffer(raw[members].tobytes(), np.uint8))
        compressor.finish_current_chunk()
        entries[key] = (start, body.tell() - start, int(members.sum()))
    compressor.done()

    for level in range(depth):  # the ancestors, which hold no points of their own
        for key in list(entries):
            if key[0] > level:
                entries.setdefault((level, *(k >> (key[0] - level) for k in key[1:])), (0, 0, 0))
    apart = {k: e for k, e in entries.items() if extra_page and k[0] > 0 and k[1] >> (k[0] - 1) == 0}
    pages_at = body.seek(0, io.SEEK_END) + 60
    page = b"".join(struct.pack("<4iQii", *k, *e) for k, e in apart.items())
    root = b"".join(struct.pack("<4iQii", *k, *e) for k, e in entries.items() if k not in apart)
    for key in [k for k in apart if k[0] == 1]:
        root += struct.pack("<4iQii", *key, pages_at, len(page), -1)
    body.write(_record_header("copc", 1000, len(page) + len(root), extended=True) + page + root)

    header.point_count = len(cloud)
    header.mins, header.maxs = las.xyz.min(axis=0), las.xyz.max(axis=0)
    info = struct.pack("<3d", *[size / 2] * 3) + struct.pack(
        "<2d2Q2d", size / 2, 1.0, pages_at + len(page), len(root), 0, 0
    )
    head = io.BytesIO()
    las.write(head)
    content = bytearray(body.getvalue())
    content[:_HEADER_SIZE] = head.getvalue()[:_HEADER_SIZE]
    struct.pack_into("<II", content, 96, points_at, 3 if own else 2)
    content[104] = 6 | 0x80
    struct.pack_into("<QI", content, 235, pages_at - 60, 1)
    content[_HEADER_SIZE:points_at] = (
        _record_header("copc", 1, _COPC_INFO_SIZE) + info.ljust(_COPC_INFO_SIZE, b"\0")
        + _record_header("laszip encoded", 22204, len(record)) + record + own
    )  # fmt: skip
    path.write_bytes(content)
    return path


def geo_key_records(keys: dict[int, int | float | str]) -> list[VLR]:
    """The records of a LAS file that hold GeoTIFF keys (OGC 19-008r4), key -> value; floats and texts apart."""
    doubles, texts, entries = b"", b"", []
    for key, value in keys.items():
        if isinstance(value, float):
            entries.append((key, 34736, 1, len(doubles) // 8))
            doubles += struct.pack("<d", value)
        elif isinstance(value, str):
            text = f"{value}|".encode()
            entries.append((key, 34737, len(text), len(texts)))
            texts += text
        else:
            entries.append((key, 0, 1, value))
    directory = b"".join(struct.pack("<4H", *entry) for entry in [(1, 1, 0, len(entries)), *entries])
    named = ((34735, directory), (34736, doubles), (34737, texts + b"\0" if texts else b""))
    return [VLR("LASF_Projection", number, "", content) for number, content in named if content]


def wkt_record(wkt: str) -> VLR:
    """The record of a LAS file that holds the WKT of its CRS."""
    return VLR("LASF_Projection", 2112, "", wkt.encode() + b"\0")


def _record_header(user: str, number: int, length: int, extended: bool = False) -> bytes:
    return struct.pack("<H16sHQ32s" if extended else "<H16sHH32s", 0, user.encode(), number, length, b"")
