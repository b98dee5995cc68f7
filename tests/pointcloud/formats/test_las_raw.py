"""Waveform packets of a scan: inside the file, or in a .wdp beside it, they come along and are compared."""

from __future__ import annotations

import struct
from pathlib import Path

import laspy
import numpy as np
import pytest
from laspy.vlrs.vlr import VLR

from pointcloud.dataset.preprocessing import examine
from pointcloud.delivery import las_copy
from pointcloud.delivery.las_copy import write_labelled
from pointcloud.delivery.proof import find_difference
from pointcloud.errors import PointloomError
from pointcloud.storage.inputs import Source
from tests.support.clouds import write_las
from tests.support.labelled_copies import CODES, NUM, SHARES, assert_labelled, waveforms


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_waveforms_inside_a_1_3_file_are_kept(tmp_path: Path, suffix: str) -> None:
    scan, out = write_las(tmp_path / "wave.las", NUM, 4, "1.3"), tmp_path / f"out{suffix}"
    content = bytearray(scan.read_bytes())
    struct.pack_into("<Q", content, 227, len(content))
    packets = np.random.default_rng(5).bytes(9_999)
    scan.write_bytes(content + packets)
    write_labelled(str(scan), str(out), CODES, SHARES)
    assert_labelled(scan, out, CODES, SHARES)
    assert waveforms(out) == packets
    assert find_difference(str(scan), str(out)) is None
    out.write_bytes(out.read_bytes()[:-1] + bytes([packets[-1] ^ 1]))
    assert find_difference(str(scan), str(out)) == "the waveform packets"


def test_waveforms_inside_a_1_4_file_are_kept_and_found(tmp_path: Path) -> None:
    header = laspy.LasHeader(version="1.4", point_format=9)
    packets = np.random.default_rng(5).bytes(9_999)
    header.evlrs = laspy.vlrs.vlrlist.VLRList(
        [VLR("A", 1, "first", b"xyz"), VLR("LASF_Spec", 65535, "", packets)]
    )
    scan, out = write_las(tmp_path / "wave.las", NUM, header=header), tmp_path / "out.laz"
    content = bytearray(scan.read_bytes())
    struct.pack_into("<Q", content, 227, content.index(packets) - 60)
    scan.write_bytes(content)
    write_labelled(str(scan), str(out), CODES, SHARES)
    assert_labelled(scan, out, CODES, SHARES)
    copied = out.read_bytes()
    (start,) = struct.unpack_from("<Q", copied, 227)
    assert copied[start + 60 : start + 60 + len(packets)] == packets
    out.write_bytes(copied[:227] + bytes(8) + copied[235:])
    assert find_difference(str(scan), str(out)) == "the waveform packets", "there, but not found"


def test_the_file_of_waveforms_beside_a_scan_comes_along(tmp_path: Path) -> None:
    scan, out = external_waveforms(tmp_path / "in" / "wave.las"), tmp_path / "out" / "wave.las"
    said = write_labelled(str(scan), str(out), CODES, SHARES).proof.waveforms
    assert "wave.wdp" in said
    assert "not beside the scan" in said
    assert [path.name for path in out.parent.iterdir()] == ["wave.las"]
    alone = examine(Source(str(scan), "wave.las")).fingerprint
    packets = np.random.default_rng(5).bytes(9_999)
    (tmp_path / "in" / "wave.wdp").write_bytes(packets)
    beside = examine(Source(str(scan), "wave.las")).fingerprint
    assert beside != alone, "what was labelled without them is labelled again"
    said = write_labelled(str(scan), str(out), CODES, SHARES).proof.waveforms
    assert said == "9999 bytes in wave.wdp, copied beside it and compared"
    assert (tmp_path / "out" / "wave.wdp").read_bytes() == packets
    assert find_difference(str(scan), str(out)) is None
    for spoil in (lambda path: path.write_bytes(packets[:-1] + b"x"), Path.unlink):
        spoil(tmp_path / "out" / "wave.wdp")
        assert find_difference(str(scan), str(out)) == "the file of waveform packets beside it"


def test_a_copy_that_differs_leaves_no_file_of_waveforms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = external_waveforms(tmp_path / "in" / "wave.las")
    (tmp_path / "in" / "wave.wdp").write_bytes(b"packets")
    monkeypatch.setattr(las_copy, "copy_raw_parts", lambda *_: None)  # the date is today's then
    content = bytearray(scan.read_bytes())
    struct.pack_into("<HH", content, 90, 1, 1999)
    struct.pack_into("<d", content, 179, 1.0)
    scan.write_bytes(content)
    with pytest.raises(PointloomError, match="would differ"):
        write_labelled(str(scan), str(tmp_path / "out" / "wave.las"), CODES, SHARES)
    assert list((tmp_path / "out").iterdir()) == []


def external_waveforms(path: Path) -> Path:
    path.parent.mkdir()
    header = laspy.LasHeader(version="1.4", point_format=10)
    header.global_encoding.waveform_data_packets_external = True
    return write_las(path, NUM, header=header)
