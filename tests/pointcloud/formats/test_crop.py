"""A strip of a scan as a scan of its own."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np
import pytest

from pointcloud.errors import ScanError
from pointcloud.formats.crop import write_window
from tests.support.clouds import assert_one_sentence
from tests.support.labelled_copies import rich


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_the_points_of_a_window_with_all_that_they_have(tmp_path: Path, suffix: str) -> None:
    scan, out = rich(tmp_path / "a.las"), tmp_path / f"out{suffix}"
    whole = laspy.read(scan)
    low, high = np.quantile(whole.x, [0.3, 0.7])
    inside = (whole.x >= low) & (whole.x < high)
    assert write_window(str(scan), str(out), low, high) == inside.sum() > 0
    part = laspy.read(out)
    assert part.points.array.tobytes() == whole.points.array[inside].tobytes()
    assert part.header.parse_crs() == whole.header.parse_crs()
    assert part.header.x_max < high
    write_window(str(scan), str(out), low, high, classification=1)
    assert set(laspy.read(out).classification) == {1}


def test_an_empty_window_is_one_sentence_and_no_file(tmp_path: Path) -> None:
    scan = rich(tmp_path / "a.las")
    with pytest.raises(ScanError, match="no point with 0 ≤ x < 1") as error:
        write_window(str(scan), str(tmp_path / "out.las"), 0, 1)
    assert_one_sentence(error, str(scan))
    assert not (tmp_path / "out.las").exists()
