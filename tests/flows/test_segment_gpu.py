"""The segment flow on a cluster that counts GPUs, or has none."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import ray

from flows.segment import segment
from pointcloud.errors import PointloomError
from tests.flows.test_segment import checkpoint, segmenting, written

pytestmark = pytest.mark.usefixtures("no_ray_cluster")

__all__ = ["checkpoint"]


def test_a_cluster_without_room_is_said(survey: Path, checkpoint: Path, tmp_path: Path) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has room for an actor with a GPU")
    with pytest.raises(PointloomError, match=r"1 CPU\(s\) and 1 GPU\(s\) each .* room for 0"):
        segment(segmenting(survey, checkpoint, tmp_path, gpu=True, cluster_wait_s=0))


def test_actors_take_the_gpus_that_a_cluster_counts(survey: Path, checkpoint: Path, tmp_path: Path) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("counts a GPU that is not there")
    # Ray believes in the GPU, torch does not: what is shown is that an actor with one is scheduled, and a second waits.
    with ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, logging_level="WARNING"):
        segment(segmenting(survey, checkpoint, tmp_path, gpu=True, num_actors=2, cpus_per_actor=1))
        until = time.monotonic() + 30
        while ray.available_resources().get("GPU") != 1:
            assert time.monotonic() < until, "it is given back"
            time.sleep(0.2)
    assert len(written(tmp_path)) == len(list(survey.iterdir()))
