"""What is not imported until it is needed, since it takes seconds: looked at in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("models.predictor", "torch_geometric"),
        ("models.weights.checkpoint", "torch"),
        ("tasks.segmenting.labeller", "prefect"),
        ("tasks.segmenting.actor", "torch"),
        ("flows.segment", "torch"),
    ],
)
def test_a_heavy_library_is_left_out(module: str, heavy: str) -> None:
    look = f"import sys, {module}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], timeout=120).returncode == 0
