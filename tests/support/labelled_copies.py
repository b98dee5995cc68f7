"""A LAS scan with all that a producer may add, and a comparison of a labelled copy by other means than the proof's."""

from __future__ import annotations

import struct
from pathlib import Path

import laspy
import numpy as np
from laspy.vlrs.vlr import VLR
from pyproj import CRS

from tests.support.clouds import write_las

NUM = 60
ADDED = "Pointloom: class probability"
CODES = np.random.default_rng(1).choice(np.array([2, 5, 6, 9], np.uint8), NUM)
SHARES = np.random.default_rng(2).random(NUM)


def rich_header(point_format: int = 7) -> laspy.LasHeader:
    """A LAS 1.4 header with all that a producer may add."""
    header = laspy.LasHeader(version="1.4", point_format=point_format)
    header.scales, header.offsets = np.array([0.01, 0.001, 0.05]), np.array([652000.0, 6862000.0, -7.0])
    header.add_crs(CRS("EPSG:2154"))
    header.system_identifier, header.generating_software = "LMS Q780", "RiPROCESS 1.9"
    header.file_source_id = 77
    header.vlrs.append(VLR("Producer", 4711, "flight notes", b"\x00\x01 binary \xff"))
    header.evlrs = laspy.vlrs.vlrlist.VLRList([VLR("Producer", 4712, "a long record", bytes(70_000))])
    header.add_extra_dims(
        [
            laspy.ExtraBytesParams("amplitude", np.float32, "Echo amplitude"),
            laspy.ExtraBytesParams(
                "deviation", np.int16, "Shape", scales=np.array([0.1]), offsets=np.array([5.0])
            ),
            laspy.ExtraBytesParams("normal", "3f4", "Normal"),
        ]
    )
    return header


def rich(path: Path) -> Path:
    rng = np.random.default_rng(3)
    amplitude = rng.random(NUM).astype(np.float32)
    amplitude[::7] = np.nan
    return write_las(
        path, NUM, header=rich_header(), amplitude=amplitude, deviation=rng.integers(-9, 9, NUM) / 10 + 5,
        normal=rng.random((NUM, 3)),
    )  # fmt: skip


def raw_points(path: Path) -> np.ndarray:
    with laspy.open(path) as reader:
        return reader.read().points.array


def extra_bytes(points: np.ndarray, start: int, end: int | None = None) -> bytes:
    """The bytes of each point from `start` on, whatever a reader takes them for."""
    return np.ascontiguousarray(
        points.view(np.uint8).reshape(len(points), points.dtype.itemsize)[:, start:end]
    ).tobytes()


def assert_labelled(scan: Path, copy: Path, codes: np.ndarray, shares: np.ndarray) -> None:
    """Compares by its own means, not by find_difference: stored bytes dimension by dimension."""
    before, after = laspy.read(scan), laspy.read(copy)
    np.testing.assert_array_equal(np.asarray(after.classification), codes)
    added = [d.name for d in after.point_format.extra_dimensions if d.description == ADDED]
    assert np.abs(np.asarray(after[added[0]]) - shares).max(initial=0) <= 0.005 + 1e-9
    for name in before.point_format.standard_dimension_names:
        if name != "classification":
            np.testing.assert_array_equal(np.asarray(before[name]), np.asarray(after[name]), err_msg=name)
    mine, other = raw_points(scan), raw_points(copy)
    for name in laspy.PointFormat(before.header.point_format.id).dtype().names:
        if name not in ("classification", "raw_classification"):
            assert mine[name].tobytes() == other[name].tobytes(), name
    assert extra_bytes(mine, before.point_format.num_standard_bytes) == extra_bytes(
        other, before.point_format.num_standard_bytes, mine.dtype.itemsize
    )
    assert before.header.point_format.id == after.header.point_format.id
    assert before.header.version == after.header.version
    np.testing.assert_array_equal(before.header.scales, after.header.scales)
    np.testing.assert_array_equal(before.header.offsets, after.header.offsets)
    head, new_head = scan.read_bytes()[:94], copy.read_bytes()[:94]
    assert head == new_head, "identity, version, software and date, byte for byte"

    def others(vlrs: list[VLR] | None) -> list[tuple[str, int, bytes]]:
        rewritten = (("LASF_Spec", 4), ("laszip encoded", 22204))  # extra bytes, compression
        kept = [v for v in vlrs or [] if (v.user_id, v.record_id) not in rewritten and v.user_id != "copc"]
        return [(v.user_id, v.record_id, v.record_data_bytes()) for v in kept]

    assert others(before.header.vlrs) == others(after.header.vlrs)
    assert others(before.header.evlrs) == others(after.header.evlrs)
    assert before.header.parse_crs() == after.header.parse_crs()
    if before.header.version.minor == 3:
        assert waveforms(scan) == waveforms(copy)


def waveforms(path: Path) -> bytes:
    """The waveform packets of a LAS 1.3 file (LAS 1.3 R11, table 3), which no library reads."""
    content = path.read_bytes()
    (start,) = struct.unpack_from("<Q", content, 227)
    return content[start:] if start else b""
