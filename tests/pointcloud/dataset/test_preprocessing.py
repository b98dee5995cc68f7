"""Reading and cutting a scan, as a function of the process that calls it."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa

from pointcloud.dataset.preprocessing import PreprocessConfig, cut_scan, read_scan
from pointcloud.dataset.splits import SplitRule
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labels import PRESETS
from pointcloud.simulate.files import write_tile
from pointcloud.simulate.survey import SurveyConfig
from pointcloud.storage.inputs import Source


def test_reading_and_cutting_leave_the_process_as_it_was(tmp_path: Path) -> None:
    config = SurveyConfig(tiles=(1, 1), tile_size_m=20.0, points_per_m2=2.0)
    scan = write_tile(config, 0, 0, tmp_path)
    cutting = PreprocessConfig(
        block_config=BlockConfig(),
        scheme=PRESETS["asprs-basic"],
        rule=SplitRule(),
        required=(),
        sample_points=0,
        min_points=1,
        window=None,
    )
    before, environment = pa.cpu_count(), dict(os.environ)
    pa.set_cpu_count(3)
    try:
        decoded = read_scan(Source(str(scan), scan.name), cutting, tmp_path)
        assert cut_scan(decoded, [], cutting, str(tmp_path / "shard.parquet")).num_core
        assert pa.cpu_count() == 3
        assert os.environ == environment
    finally:
        pa.set_cpu_count(before)
