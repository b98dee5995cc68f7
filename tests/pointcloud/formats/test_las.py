"""Reading scans: what is good comes whole, what is bad becomes one sentence that names the file."""

from __future__ import annotations

import io
import logging
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import laspy
import lazrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laspy.vlrs.known import WktCoordinateSystemVlr
from pyproj import CRS

from pointcloud.blocks.decoded import decode_scan
from pointcloud.blocks.tiles import thin
from pointcloud.delivery.las_copy import write_labelled
from pointcloud.errors import ScanError, StorageError
from pointcloud.formats import las as scan
from pointcloud.formats.las import iterate_dimension, open_scan
from pointcloud.formats.reader import read_cloud, read_header
from pointcloud.grid.block_config import BlockConfig
from pointcloud.quality.inspect import inspect_scan
from tests.support import broken_files
from tests.support.broken_files import LETHAL, PANICS, SOUND, SUSPECT, UNREADABLE, Writer
from tests.support.clouds import assert_one_sentence, real_files, write_las

NOT_SUSPECT_HERE = (broken_files.huge_extent,)  # a cloud, but not one that can be cut into blocks

READ = """
import sys
from pointcloud.errors import ScanError
from pointcloud.formats.reader import read_cloud
try:
    read_cloud(sys.argv[1])
except ScanError as error:
    print(error)
"""


def name(writer: Writer) -> str:
    return writer.__name__


# --- good scans


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("point_format", range(11))
def test_every_point_format_comes_whole(tmp_path: Path, suffix: str, point_format: int) -> None:
    path = write_las(tmp_path / f"a{suffix}", 300, point_format)
    cloud, las = read_cloud(str(path)), laspy.read(path)
    np.testing.assert_array_equal(cloud.xyz, las.xyz)
    assert cloud.xyz.dtype == np.float64
    expected = {"intensity", "return_number", "number_of_returns", "classification"}
    if point_format in (2, 3, 5, 7, 8, 10):
        expected |= {"red", "green", "blue"}
    assert set(cloud.attributes) == expected
    for attribute, values in cloud.attributes.items():
        np.testing.assert_array_equal(values, np.asarray(las[attribute]), err_msg=attribute)


def test_chunks_add_up_to_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(write_las(tmp_path / "a.laz", 250))
    whole = read_cloud(path)
    for points, num_bytes in ((100, 1 << 30), (10**6, 30 * 99)):
        monkeypatch.setattr(scan, "CHUNK_POINTS", points)
        monkeypatch.setattr(scan, "_CHUNK_BYTES", num_bytes)
        with open_scan(path) as reader:
            sizes = [len(chunk) for chunk in scan.iterate_chunks(path, reader)]
        assert len(sizes) == 3
        assert sum(sizes) == 250
        np.testing.assert_array_equal(read_cloud(path).xyz, whole.xyz)


@pytest.mark.parametrize(
    ("top", "factor"), [(255, 257), (256, 1), (65535, 1), (1, 257)], ids=lambda v: f"{v}"
)
def test_colours_of_8_bits_become_16(tmp_path: Path, top: int, factor: int) -> None:
    red, green, blue = np.arange(10) % 2, np.zeros(10, int), np.linspace(0, top, 10).astype(int)
    path = write_las(tmp_path / "a.las", 10, 7, red=red, green=green, blue=blue)
    cloud = read_cloud(str(path))
    for attribute, values in (("red", red), ("green", green), ("blue", blue)):
        assert cloud.attributes[attribute].dtype == np.uint16
        np.testing.assert_array_equal(cloud.attributes[attribute], values * factor)


def test_colours_that_were_never_filled_are_dropped(tmp_path: Path) -> None:
    path = write_las(tmp_path / "a.las", 10, 7, red=0, green=0, blue=0)
    assert set(read_cloud(str(path)).attributes) == {
        "intensity", "return_number", "number_of_returns", "classification",
    }  # fmt: skip


def test_the_crs_or_none_and_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.add_crs(CRS("EPSG:2154"))
    assert read_cloud(str(write_las(tmp_path / "crs.las", header=header))).crs == CRS("EPSG:2154")
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert read_cloud(str(write_las(tmp_path / "none.las"))).crs is None
    assert "none.las: no CRS in the file; metres are assumed" in caplog.text


def test_a_crs_that_cannot_be_understood_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.vlrs.append(WktCoordinateSystemVlr('PROJCS["nonsense",'))
    header.global_encoding.wkt = True
    path = write_las(tmp_path / "odd.las", header=header)
    with caplog.at_level(logging.WARNING):
        assert read_cloud(str(path)).crs is None
    assert "odd.las: its CRS cannot be understood" in caplog.text


def test_one_dimension_scaled_or_nothing(tmp_path: Path) -> None:
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.add_extra_dim(
        laspy.ExtraBytesParams("share", np.uint8, scales=np.array([0.01]), offsets=np.array([0.0]))
    )
    path = str(write_las(tmp_path / "a.laz", 20, header=header, share=np.arange(20) / 20))
    np.testing.assert_allclose(np.concatenate(list(iterate_dimension(path, "share"))), np.arange(20) / 20)
    assert not list(iterate_dimension(path, "confidence"))


# --- bad scans


@pytest.mark.parametrize("writer", [*SUSPECT, *UNREADABLE, *PANICS], ids=name)
def test_broken_files_are_one_sentence(writer: Writer, tmp_path: Path) -> None:
    path = writer(tmp_path)
    if writer in NOT_SUSPECT_HERE:
        cloud = read_cloud(str(path))
        with pytest.raises(ScanError, match="stray points"):
            thin(cloud, BlockConfig())
        return
    with pytest.raises(ScanError) as error:
        read_cloud(str(path))
    assert_one_sentence(error, str(path))


@pytest.mark.parametrize("writer", LETHAL, ids=name)
def test_files_that_kill_a_reader_are_refused_at_once(writer: Writer, tmp_path: Path) -> None:
    def limits() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    path = writer(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, timeout=120, check=False,
        preexec_fn=limits, cwd=Path(__file__).parents[3], env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
    assert str(path) in done.stdout
    assert "promises" in done.stdout


def test_sound_files_at_the_edge(tmp_path: Path) -> None:
    assert len(SOUND) == 2
    assert len(read_cloud(str(broken_files.one_point(tmp_path)))) == 1
    with pytest.raises(ScanError, match="holds no points") as error:
        read_cloud(str(broken_files.zero_points(tmp_path)))
    assert_one_sentence(error, "zero_points.las")


def test_a_missing_scan_is_a_matter_of_storage(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"gone\.laz"):
        read_cloud(str(tmp_path / "gone.laz"))


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@given(data=st.data())
def test_every_truncated_copy_is_refused(
    suffix: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = broken_files.good(suffix, 40)
    length = data.draw(st.integers(0, len(content) - 1))
    path = tmp_path_factory.getbasetemp() / f"cut{suffix}"
    path.write_bytes(content[:length])
    with pytest.raises(ScanError) as error:
        read_cloud(str(path))
    assert_one_sentence(error, str(path))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(changes=st.lists(st.tuples(st.integers(0, 1274), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_las_is_a_cloud_or_one_sentence(
    changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(broken_files.good(".las", 30))
    for at, value in changes:
        content[at % (400 if value % 2 else len(content))] = value
    path = tmp_path_factory.getbasetemp() / "damaged.las"
    path.write_bytes(content)
    try:
        outcome: int | str = len(read_cloud(str(path)))
    except ScanError as error:
        outcome = str(error)
    assert isinstance(outcome, int) or (str(path) in outcome and "\n" not in outcome)


def laz_with_table(path: Path, chunks: list[tuple[int, int]]) -> Path:
    """A LAZ whose chunk table promises these (points, bytes)."""
    content = broken_files.good(".laz")
    header = laspy.LasHeader.read_from(io.BytesIO(content))
    vlr = lazrs.LazVlr(header.vlrs.get("LasZipVlr")[0].record_data)
    (table_at,) = struct.unpack_from("<q", content, header.offset_to_point_data)
    table = io.BytesIO()
    lazrs.write_chunk_table(table, chunks, vlr)
    path.write_bytes(content[:table_at] + table.getvalue())
    return path


def test_a_chunk_table_that_promises_more_bytes_than_there_are(tmp_path: Path) -> None:
    honest = len(broken_files.good(".laz"))
    sound = laz_with_table(tmp_path / "sound.laz", [(50_000, honest // 2)])
    with open_scan(str(sound)) as reader:
        assert reader.header.point_count == broken_files.NUM_POINTS
    lying = laz_with_table(tmp_path / "lying.laz", [(50_000, 2_000_000_000)])
    with pytest.raises(ScanError, match="promises 2000000000 bytes") as error:
        read_cloud(str(lying))
    assert_one_sentence(error, "lying.laz")


def test_compressed_points_of_another_size_than_the_header_says(tmp_path: Path) -> None:
    content = bytearray(broken_files.good(".laz"))
    at = content.index(b"laszip encoded") + 52  # the record's content
    struct.pack_into(
        "<H", content, at + 36, 30_000
    )  # size of the first item: a million points would be 30 GB
    path = tmp_path / "swollen.laz"
    path.write_bytes(content)
    with pytest.raises(ScanError, match="points of 30000") as error:
        read_cloud(str(path))
    assert_one_sentence(error, "swollen.laz")


def test_mistakes_of_our_own_are_not_blamed_on_the_scan(tmp_path: Path) -> None:
    path = str(write_las(tmp_path / "a.las"))
    with pytest.raises(AssertionError, match="ours"), open_scan(path):
        raise AssertionError("ours")
    with pytest.raises(KeyboardInterrupt), open_scan(path):
        raise KeyboardInterrupt


# --- real files

TRICKY: dict[str, int | str] = {
    "Example_las10_pf1.las": 30,
    "las11_pf0_1pt.las": 1,
    "las12_pf2_1pt.las": 1,
    "pdrf6-1.4.las": 1024,
    "pdrf8-1.4.laz": 1024,
    "pdrf5-1.3.laz": 1024,
    "single_point_pf8.laz": 1,
    "noepsg.laz": 17_845,
    "malformed_extrabytes.las": 10,
    "fullwave_pf10.laz": 10_750,
    "zero_points.las": "holds no points",
    "zero_bytes.las": "has 0 bytes",
    "broken_coder.laz": "coder 15 not supported",
    "broken_size.laz": "POINT10 has version > 2",
    "truncated_half.laz": "failed to fill whole buffer",
    "truncated_in_header.las": "120 bytes",
    "not_a_las.las": "LAS signature",
}


@pytest.mark.parametrize("path", real_files("tricky/*"))
def test_every_tricky_file_has_its_outcome(path: Path) -> None:
    expected = TRICKY[path.name]
    if isinstance(expected, int):
        assert len(read_cloud(str(path))) == expected
        return
    with pytest.raises(ScanError, match=expected) as error:
        read_cloud(str(path))
    assert_one_sentence(error, str(path))


@pytest.mark.parametrize("path", real_files("tricky/pdrf[68]-1.4.la?"))
def test_random_coordinates_are_read_and_then_refused(path: Path) -> None:
    with pytest.raises(ScanError, match="stray points are likely"):
        thin(read_cloud(str(path)), BlockConfig())


@pytest.mark.parametrize("point_format", [1, 3, 6, 8])
def test_what_a_cloud_cannot_carry_stays_compressed(tmp_path: Path, point_format: int) -> None:
    """Attributes are the same; of layered formats GPS times are not even decoded, so damage in them does no harm."""
    version = "1.4" if point_format >= 6 else "1.2"
    path = write_las(tmp_path / "a.laz", point_format=point_format, version=version)
    with open_scan(str(path)) as whole, open_scan(str(path), attributes_only=True) as part:
        everything, some = whole.read(), part.read()
    for name in ("X", "Y", "Z", "intensity", "return_number", "number_of_returns", "classification"):
        np.testing.assert_array_equal(some[name], everything[name])
    if point_format in (3, 8):
        np.testing.assert_array_equal(some.red, everything.red)
    assert np.ptp(everything.gps_time) > 0
    assert (np.ptp(some.gps_time) > 0) == (point_format < 6)


# --- LASzip before 2.0: one stream of points without chunks


def write_pointwise(path: Path) -> Path:
    """A LAZ file as LASzip wrote it before version 2.0: its only chunk without the places of a chunk table."""
    content = write_las(path, 200, 1, "1.2").read_bytes()
    (points_at,) = struct.unpack_from("<I", content, 96)
    (table_at,) = struct.unpack_from("<q", content, points_at)
    record = content.index(b"laszip encoded") + 52
    old = bytearray(content[:points_at] + content[points_at + 8 : table_at])
    struct.pack_into("<H", old, record, 1)
    path.write_bytes(old)
    return path


def test_what_old_laszip_wrote_is_read_and_labelled(tmp_path: Path) -> None:
    new, old = write_las(tmp_path / "new.laz", 200, 1, "1.2"), write_pointwise(tmp_path / "old.laz")
    np.testing.assert_array_equal(read_cloud(str(old)).xyz, read_cloud(str(new)).xyz)
    write_labelled(str(old), str(tmp_path / "out.laz"), np.full(200, 6, np.uint8), np.ones(200))
    copied = laspy.read(tmp_path / "out.laz", laz_backend=laspy.LazBackend.Lazrs)
    np.testing.assert_array_equal(copied.gps_time, laspy.read(new).gps_time)


def test_without_laszip_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = str(write_pointwise(tmp_path / "old.laz"))
    monkeypatch.setattr(laspy.LazBackend, "is_available", lambda backend: False)
    with pytest.raises(ScanError, match=r"pip install laszip, or write the scan again with las2las") as error:
        read_header(old)
    assert_one_sentence(error, old)


def test_what_old_laszip_wrote_and_was_cut_off_is_one_sentence(tmp_path: Path) -> None:
    old = write_pointwise(tmp_path / "old.laz")
    old.write_bytes(old.read_bytes()[:-900])
    with pytest.raises(ScanError, match="cannot read scan") as error:
        read_cloud(str(old))
    assert_one_sentence(error, str(old))


# --- return numbers that were never filled


@pytest.mark.parametrize(
    ("number", "total", "has"), [(0, 0, False), (1, 0, False), (0, 1, False), (1, 1, True)]
)
def test_return_numbers_that_were_never_filled_are_dropped(
    tmp_path: Path, number: int, total: int, has: bool
) -> None:
    path = write_las(tmp_path / "a.las", 10, return_number=number, number_of_returns=total)
    names = {"return_number", "number_of_returns"}
    assert set(read_cloud(str(path)).attributes) & names == (names if has else set())
    decoded = decode_scan("a", str(path), tmp_path / "a.arrow", BlockConfig())
    assert set(decoded.attributes) & names == (names if has else set())
    inspection = inspect_scan(str(path))
    assert set(inspection.attributes) & names == (names if has else set())
    for notes in (decoded.notes, inspection.notes):
        assert sum("counts as a single return" in note for note in notes) == (0 if has else 1)
