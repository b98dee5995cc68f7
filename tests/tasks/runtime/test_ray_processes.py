"""The private name of Ray that is used is there; where it is not, Ray starts all the same."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path

import pytest
from ray._private import services

from tasks.runtime.ray_processes import own_process_groups


def test_ray_still_starts_its_processes_by_this_name() -> None:
    popen = services.ConsolePopen
    assert issubclass(popen, subprocess.Popen)
    assert "ConsolePopen(" in Path(services.__file__).read_text()
    with own_process_groups():
        process = services.ConsolePopen(["sleep", "60"])
        try:
            assert os.getpgid(process.pid) == process.pid != os.getpgrp()
        finally:
            process.kill()
            process.wait(30)
    assert services.ConsolePopen is popen


def test_without_that_name_nothing_is_changed_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(services, "ConsolePopen")
    with caplog.at_level(logging.WARNING), own_process_groups():
        assert not hasattr(services, "ConsolePopen")
    assert "starts its processes in another way" in caplog.text
