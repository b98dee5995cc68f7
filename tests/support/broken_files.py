"""Seeded, tiny LAS and LAZ files that are broken, suspicious, or merely as small as can be.

Every function writes one file into a folder and returns its path; its name is the file's stem and its
docstring says what is wrong. The groups say what a reader meets (laspy 2.7, lazrs 0.8; test_broken_files):

- `SOUND`: good files at the edge of what is allowed.
- `SUSPECT`: laspy reads them without complaint, and what it gives is impossible.
- `UNREADABLE`: an `Exception`.
- `PANICS`: lazrs raises `pyo3_runtime.PanicException`, a `BaseException`: `except Exception` misses it.
- `LETHAL`: the process is aborted or eats all memory and time. Read them in a child process with limits only.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import laspy
import numpy as np

NUM_POINTS = 1065
"""Points in the good file from which the broken ones are made."""

Writer = Callable[[Path], Path]

# Byte offsets in the LAS 1.4 header (LAS 1.4 R16, table 3).
_HEADER_SIZE, _POINT_DATA_OFFSET, _NUM_VLRS, _SCALE, _POINT_COUNT = 94, 96, 100, 131, 247
_VLR_HEADER_SIZE = 54
_POINT_SIZE = 30
_LASZIP_RECORD_ID = 22204


def good(suffix: str, num_points: int = NUM_POINTS, seed: int = 0, extent_m: float = 100.0) -> bytes:
    """A good file as bytes: LAS 1.4, point format 6, without CRS, classes 2, 5 and 6."""
    rng = np.random.default_rng(seed)
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.scales = np.full(3, 0.01 if extent_m < 1e6 else 1.0)
    las = laspy.LasData(header)
    las.x, las.y, las.z = rng.uniform(0, extent_m, (3, num_points)) * [[1], [1], [0.1]]
    las.intensity = rng.integers(0, 65536, num_points, dtype=np.uint16)
    las.classification = rng.choice(np.array([2, 5, 6], np.uint8), num_points)
    las.return_number[:] = las.number_of_returns[:] = 1
    stream = io.BytesIO()
    las.write(stream, do_compress=suffix == ".laz", laz_backend=laspy.LazBackend.Lazrs)
    return stream.getvalue()


def zero_points(folder: Path) -> Path:
    """A good file without a single point."""
    return _write(folder, "zero_points.las", good(".las", 0))


def one_point(folder: Path) -> Path:
    """A good compressed file with one point: no extent, no neighbours."""
    return _write(folder, "one_point.laz", good(".laz", 1))


def huge_extent(folder: Path) -> Path:
    """Points spread over 1e9 m: 1e14 tiles of 100 m, were all of them made."""
    return _write(folder, "huge_extent.las", good(".las", extent_m=1e9))


def nan_scale(folder: Path) -> Path:
    """The scale of x is NaN, so every x is."""
    return _write(folder, "nan_scale.las", _with(good(".las"), _SCALE, "<d", np.nan))


def infinite_scale(folder: Path) -> Path:
    """The scale of x is infinite."""
    return _write(folder, "infinite_scale.las", _with(good(".las"), _SCALE, "<d", np.inf))


def lying_count(folder: Path) -> Path:
    """The header says 1065 points and the file ends after the header."""
    data = good(".las")
    return _write(folder, "lying_count.las", data[: struct.unpack_from("<I", data, _POINT_DATA_OFFSET)[0]])


def half_las(folder: Path) -> Path:
    """The first 500 of an uncompressed file's 1065 points: a copy that was broken off between two points."""
    data = good(".las")
    start = struct.unpack_from("<I", data, _POINT_DATA_OFFSET)[0]
    return _write(folder, "half_las.las", data[: start + 500 * _POINT_SIZE])


def torn_las(folder: Path) -> Path:
    """As half_las, cut within a point."""
    data = good(".las")
    start = struct.unpack_from("<I", data, _POINT_DATA_OFFSET)[0]
    return _write(folder, "torn_las.las", data[: start + 500 * _POINT_SIZE + 7])


def not_a_las(folder: Path) -> Path:
    """Text that is called .las: the error page of a download."""
    return _write(folder, "not_a_las.las", b"<html><body>404 Not Found</body></html>\n" * 20)


def zero_bytes(folder: Path) -> Path:
    """An empty file: a full disk."""
    return _write(folder, "zero_bytes.laz", b"")


def truncated_header(folder: Path) -> Path:
    """The first 200 of the header's 375 bytes."""
    return _write(folder, "truncated_header.las", good(".las")[:200])


def truncated_laz(folder: Path) -> Path:
    """The first half of a compressed file."""
    data = good(".laz")
    return _write(folder, "truncated_laz.laz", data[: len(data) // 2])


def lying_count_laz(folder: Path) -> Path:
    """A compressed file whose header says a million points and which holds 1065."""
    return _write(folder, "lying_count_laz.laz", _with(good(".laz"), _POINT_COUNT, "<Q", 1_000_000))


def no_laszip_vlr(folder: Path) -> Path:
    """A compressed file without the record that says how it is compressed."""
    data = good(".laz")
    return _write(
        folder, "no_laszip_vlr.laz", _with(data, _laszip_vlr(data) - _VLR_HEADER_SIZE + 18, "<H", 22205)
    )


def broken_chunk_table(folder: Path) -> Path:
    """The compressed chunk table is all ones, so a chunk's size comes out negative."""
    data = bytearray(good(".laz"))
    entries = _chunk_table(bytes(data)) + 8
    data[entries:] = b"\xff" * (len(data) - entries)
    return _write(folder, "broken_chunk_table.laz", bytes(data))


def no_laszip_items(folder: Path) -> Path:
    """The compression record names no item, so a point has no size."""
    data = good(".laz")
    return _write(folder, "no_laszip_items.laz", _with(data, _laszip_vlr(data) + 32, "<H", 0))


def endless_chunk_table(folder: Path) -> Path:
    """The chunk table says 4 billion chunks: lazrs asks for 64 GB at once and aborts when it gets none."""
    data = good(".laz")
    return _write(folder, "endless_chunk_table.laz", _with(data, _chunk_table(data) + 4, "<I", 0xFFFFFFFF))


def endless_vlrs(folder: Path) -> Path:
    """The header says 4 billion variable length records."""
    return _write(folder, "endless_vlrs.las", _with(good(".las"), _NUM_VLRS, "<I", 0xFFFFFFFF))


SOUND: tuple[Writer, ...] = (zero_points, one_point)
SUSPECT: tuple[Writer, ...] = (huge_extent, nan_scale, infinite_scale, lying_count, half_las)
UNREADABLE: tuple[Writer, ...] = (
    not_a_las,
    zero_bytes,
    truncated_header,
    torn_las,
    truncated_laz,
    lying_count_laz,
    no_laszip_vlr,
)
PANICS: tuple[Writer, ...] = (broken_chunk_table, no_laszip_items)
LETHAL: tuple[Writer, ...] = (endless_chunk_table, endless_vlrs)


def _write(folder: Path, name: str, data: bytes) -> Path:
    path = Path(folder) / name
    path.write_bytes(data)
    return path


def _with(data: bytes, offset: int, kind: str, value: float) -> bytes:
    changed = bytearray(data)
    struct.pack_into(kind, changed, offset, value)
    return bytes(changed)


def _laszip_vlr(data: bytes) -> int:
    """Offset of the content of the LASzip record."""
    place = struct.unpack_from("<H", data, _HEADER_SIZE)[0]
    for _ in range(struct.unpack_from("<I", data, _NUM_VLRS)[0]):
        record_id, length = struct.unpack_from("<HH", data, place + 18)
        if record_id == _LASZIP_RECORD_ID:
            return int(place + _VLR_HEADER_SIZE)
        place += _VLR_HEADER_SIZE + length
    raise AssertionError("a compressed file has a LASzip record")


def _chunk_table(data: bytes) -> int:
    """Offset of the chunk table: version, number of chunks, compressed sizes."""
    return int(struct.unpack_from("<q", data, struct.unpack_from("<I", data, _POINT_DATA_OFFSET)[0])[0])
