"""A Ray that does not come up is one sentence, whatever Ray raises."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from pointcloud.errors import PointloomError
from tasks.cluster import ray_session
from tests.clouds import assert_one_sentence


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        (None, Exception("The current node timed out\nduring startup."), "Ray did not start on this machine"),
        ("10.0.0.1:6379", ConnectionError("refused"), "no Ray cluster answers at 10.0.0.1:6379"),
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
