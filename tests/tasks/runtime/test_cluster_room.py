"""More Ray workers than a cluster has are said after a limit."""

from __future__ import annotations

import os
import time

import pytest
import ray

from pointcloud.errors import PointloomError
from tasks.runtime.cluster import await_room, ray_session
from tests.support.clouds import assert_one_sentence

pytestmark = pytest.mark.usefixtures("no_ray_cluster")


def test_too_many_ray_workers_are_said_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with ray_session(3):
        await_room(3, {"CPU": 1, "GPU": 0}, limit_s=0)
        await_room(1, {"CPU": 3}, limit_s=0)
        began = time.monotonic()
        # 3 CPUs hold one Ray worker of two, never two.
        with pytest.raises(PointloomError, match=r"2 Ray workers with 2 CPU\(s\).*room for 1") as error:
            await_room(2, {"CPU": 2}, limit_s=2)
        assert 2 <= time.monotonic() - began < 20
        assert_one_sentence(error, "larger cluster")
        with pytest.raises(PointloomError, match=r"1 CPU\(s\) and 1 GPU\(s\) each.*room for 0"):
            await_room(1, {"CPU": 1, "GPU": 1}, limit_s=0)
        # A request that nobody waits for any more must not keep an autoscaler growing.
        assert ray.cluster_resources()["CPU"] == 3
    assert "RAY_ADDRESS" not in os.environ
