"""From the arrays of labelling to a labelled cloud, and the check before it that a copy can hold the labels."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np
import pytest

from pointcloud.delivery.deliver import decode_beside, decode_for_labels, write_labels
from pointcloud.errors import ScanError
from pointcloud.labelling.options import LabelOptions
from pointcloud.labels import PRESETS
from tests.support.clouds import SCHEME, SMALL, assert_one_sentence, read_labelled, write_las
from tests.support.odd_las import descriptor, extra_bytes_record, write_odd_las


@pytest.mark.parametrize("suffix", [".las", ".laz", ".ply", ".parquet"])
def test_arrays_become_a_labelled_cloud(tmp_path: Path, suffix: str) -> None:
    scan, out = write_las(tmp_path / "a.las", 50), str(tmp_path / f"out{suffix}")
    classes = np.arange(50) % len(SCHEME)
    shares = np.random.default_rng(0).integers(0, 255, (50, len(SCHEME)), np.uint8)
    folder = tmp_path / "arrays"
    folder.mkdir()
    for name, values in {
        "classes": classes.astype(np.uint8),
        "confidence": np.linspace(0, 1, 50),
        "entropy": np.arange(50, dtype=np.uint8),
        "probabilities": shares,
    }.items():
        np.save(folder / f"{name}.npy", values)
    counts, proof = write_labels(
        str(scan), out, folder, SCHEME, LabelOptions(entropy=True, probabilities=True)
    )
    codes = SCHEME.to_codes(classes)
    np.testing.assert_array_equal(counts, np.bincount(codes, minlength=256))
    assert proof.points == 50
    cloud, confidence = read_labelled(out)
    np.testing.assert_array_equal(cloud.attributes["classification"], codes)
    np.testing.assert_allclose(confidence, np.linspace(0, 1, 50), atol=0.0051)
    if suffix == ".las":
        las = laspy.read(out)
        for number, name in enumerate(SCHEME.names):
            np.testing.assert_array_equal(las.points.array[f"p_{name}"], shares[:, number])


def test_every_point_is_decoded_and_those_beside_it(tmp_path: Path) -> None:
    scan = write_las(tmp_path / "a.las", 300)
    decoded = decode_for_labels("a", str(scan), tmp_path / "a.arrow", SMALL, SCHEME)
    assert decoded.num_points == 300
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.scales, header.offsets = np.full(3, 0.001), np.array([652_060.0, 6_862_000.0, 0.0])
    neighbour = write_las(tmp_path / "b.las", 300, header=header)
    beside = decode_beside("b", str(neighbour), tmp_path / "b.arrow", SMALL, decoded)
    reach = 2 * SMALL.tile_size_m + SMALL.halo_m + SMALL.ground_window_m
    near = np.asarray(laspy.read(neighbour).x) < decoded.extent[1, 0] + reach
    assert near.sum() <= beside.num_points < 300, "all that tiles and halos need, and not the whole scan"


def test_what_a_copy_cannot_hold_is_said_before_anything_is_decoded(tmp_path: Path) -> None:
    many = extra_bytes_record(*(descriptor(f"f{n}".encode(), 1) for n in range(340)))
    scan = write_odd_las(tmp_path / "a.las", [many], num_extra=340)
    arrow = tmp_path / "a.arrow"
    decode_for_labels("a", str(scan), arrow, SMALL, PRESETS["asprs"])
    arrow.unlink()
    for options in (LabelOptions(entropy=True), LabelOptions(keep_original=True)):
        with pytest.raises(ScanError, match="342 extra dimensions") as error:
            decode_for_labels("a", str(scan), arrow, SMALL, PRESETS["asprs"], options)
        assert_one_sentence(error, str(scan))
    assert not arrow.exists()
