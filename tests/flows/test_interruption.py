"""A training that was killed goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from prefect.settings import PREFECT_API_URL

from flows.preprocess import preprocess
from flows.train import train
from models.checkpoint import RECORD, read_checkpoint
from tests.flows.test_main_job import preprocessing, small_training

_LIMIT_S = 240


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_last_epoch(survey: Path, tmp_path: Path) -> None:
    preprocess(preprocessing([survey], tmp_path / "blocks"))
    parameters = small_training(tmp_path / "blocks", tmp_path / "checkpoint", epochs=40)
    (tmp_path / "parameters.json").write_text(parameters.model_dump_json())
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", "train", "--parameters", str(tmp_path / "parameters.json")],
        env={**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + _LIMIT_S
        while len(saved := sorted((tmp_path / "checkpoint/runs").glob("*/checkpoint*/state.pt"))) < 2:
            assert process.poll() is None, "the training ended before it could be killed"
            assert time.monotonic() < deadline, "no epoch ended in time"
            time.sleep(0.2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
    assert not (tmp_path / "checkpoint" / RECORD).exists()
    # The newest checkpoint may have been half uploaded; the one before it is whole.
    before = torch.load(saved[0], weights_only=True)["history"]
    train(parameters)
    history = read_checkpoint(str(tmp_path / "checkpoint")).history
    assert [epoch["epoch"] for epoch in history] == list(range(1, 41))
    assert history[: len(before)] == before
