"""A rich scan and its labelled copy, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from pointcloud.delivery.las_copy import write_labelled
from tests.support.labelled_copies import CODES, SHARES, rich


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return rich(tmp_path / "scan.las")


@pytest.fixture
def copy(scan: Path, tmp_path: Path) -> Path:
    out = tmp_path / "out" / "scan.las"
    write_labelled(str(scan), str(out), CODES, SHARES)
    return out
