"""States are shown while the server takes them, and no run fails where it does not."""

from __future__ import annotations

import logging

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from pointcloud.storage.ledger import DONE, WAITING, Record
from tasks.prefect_ui.scan_states import ScanStates


def test_a_server_that_is_gone_fails_no_run_and_is_said(caplog: pytest.LogCaptureFixture) -> None:
    dead = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(dead), caplog.at_level(logging.WARNING):
        states = ScanStates("key", "title", {"a": WAITING}, {"a": (0.0, 0.0, 1.0, 1.0)}, 1)
        states.set("a", DONE, Record(stage="segment", scan="a", key="k", state=DONE))
        states.show()
    assert "could not be shown in Prefect" in caplog.text
