"""What a scan does not carry: assumed and said where there is a plain value for it, else the scan is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from models.network.deepgcn import DeepGCN
from pointcloud.blocks.features import num_channels
from pointcloud.formats.columns import RETURNS
from pointcloud.storage.ledger import DONE, QUARANTINED
from tasks.segmenting.actor import ScanSegmenter
from tasks.segmenting.job import SegmentJob
from tests.models.test_predictor import make_predictor
from tests.support.clouds import make_cloud
from tests.tasks.segmenting.test_actor import job, published, run

__all__ = ["job"]


def test_a_scan_without_return_numbers_counts_as_single_returns_and_one_without_colours_is_refused(
    job: SegmentJob, tmp_path: Path
) -> None:
    checkpoint = make_predictor(voxel_size_m=1.0).checkpoint
    known = checkpoint.statistics
    statistics = replace(
        known, mean=dict.fromkeys(RETURNS, 1.5) | known.mean, std=dict.fromkeys(RETURNS, 1.0) | known.std
    )
    scan = tmp_path / "a.npz"
    np.savez(scan, xyz=make_cloud(300).xyz)

    def labelled(features: tuple[str, ...]) -> dict[str, Any]:
        network = replace(checkpoint.network, in_channels=num_channels(features))
        trained = replace(
            checkpoint,
            network=network,
            state=DeepGCN(network).state_dict(),
            features=features,
            statistics=statistics,
        )
        return run(ScanSegmenter(published(job, trained)), scan)

    record = labelled(("xyz", "returns"))
    assert record["state"] == DONE, record["error"]
    assert any("no return numbers" in note for note in record["details"]["notes"])
    record = labelled(("xyz",))
    assert not any("return" in note for note in record["details"]["notes"])
    record = labelled(("xyz", "rgb"))
    assert record["state"] == QUARANTINED
    assert record["error"].startswith(f"scan '{scan}' has no red, green, blue, which")
