"""A local Ray ends by its driver alone; one that does not come up is one sentence, whatever Ray raises."""

from __future__ import annotations

import os
from typing import Any

import psutil
import pytest
import ray

from pointcloud.errors import PointloomError
from tasks.runtime.cluster import ray_session
from tests.support.clouds import assert_one_sentence

pytestmark = pytest.mark.usefixtures("no_ray_cluster")


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        (None, Exception("The current node timed out\nduring startup."), "Ray did not start on this machine"),
        ("auto", ConnectionError("refused"), "no Ray cluster answers at auto"),
    ],
)
def test_a_ray_that_does_not_come_up_is_said(
    monkeypatch: pytest.MonkeyPatch, address: str | None, error: Exception, said: str
) -> None:
    def init(**_: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    else:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(PointloomError, match=said) as raised, ray_session(1):
        pass
    assert_one_sentence(raised, "")


def test_a_signal_to_the_drivers_process_group_does_not_reach_a_local_ray(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = set(psutil.Process().children(recursive=True))
    with ray_session(1):
        started = set(psutil.Process().children(recursive=True)) - before
        assert any(process.name() == "raylet" for process in started)
        assert os.getpgrp() not in {os.getpgid(process.pid) for process in started if process.is_running()}
    assert psutil.wait_procs(list(started), timeout=60)[1] == []
