"""The collections of the benchmark: scans side by side, each with its neighbours, and a network that fits them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.collection import _BLOCKS, write_checkpoint, write_scans
from models.weights.checkpoint import read_checkpoint
from pointcloud.blocks.neighbours import find_neighbours
from pointcloud.formats.reader import find_scans, read_header


def test_scans_lie_side_by_side(tmp_path: Path) -> None:
    sources = find_scans([str(write_scans(tmp_path, 5))])
    headers = {source.name: read_header(source.uri) for source in sources}
    corners = [header.bounds[0, :2] for header in headers.values() if header.bounds is not None]
    assert len(np.unique(np.round(corners), axis=0)) == 5
    assert {header.num_points for header in headers.values()} == {next(iter(headers.values())).num_points}
    assert all(find_neighbours(headers, _BLOCKS).values())


def test_the_network_fits_the_scans(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint")
    assert read_checkpoint(str(tmp_path / "checkpoint")).block_config == _BLOCKS
