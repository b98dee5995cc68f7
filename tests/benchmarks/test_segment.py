"""What the figures rest on: nine files hold every point of the one, once."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np

from benchmarks.segment import cut_in_nine
from tests.clouds import write_las


def test_nine_files_hold_every_point_once(tmp_path: Path) -> None:
    scan = write_las(tmp_path / "whole.laz", 500)
    paths, places = cut_in_nine(scan, tmp_path / "nine")
    assert len(paths) == 9
    np.testing.assert_array_equal(np.sort(np.concatenate(places)), np.arange(500))
    whole = laspy.read(scan)
    for path, place in zip(paths, places, strict=True):
        np.testing.assert_array_equal(laspy.read(path).gps_time, whole.gps_time[place])
