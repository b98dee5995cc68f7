"""Some hundred damaged inputs of every kind; `make fuzz` tries ten thousand."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.fuzz.campaign import run, summary
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import read

CASES_OF_EACH = 15


def test_damaged_inputs_are_read_or_named(tmp_path: Path) -> None:
    cases = list(run(tmp_path, CASES_OF_EACH * len(SEEDS), seconds=240, seed=1))
    assert len(cases) > 5 * len(SEEDS), summary(cases)
    assert not [case for case in cases if case.fault], summary(cases)
    assert {case.outcome for case in cases} >= {"read", "named"}


@pytest.mark.parametrize("target", sorted(set(SEEDS) - {"laz_bomb", "npz_bomb"}))
def test_sound_inputs_are_read(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)  # `read` sets it
    outcome, trespasses = read(target, str(SEEDS[target](tmp_path)), str(tmp_path))
    assert outcome.startswith("read ")
    assert not trespasses
