"""What is unlike the training is said with its figures; what is like it is let pass, edges and flat ground too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace

import numpy as np
import pytest

from pointcloud.blocks import Block
from pointcloud.drift import Range, Sampler, Seen
from pointcloud.errors import SchemaError
from tests.clouds import SMALL, cut, make_cloud

FEATURES = ("xyz", "height", "intensity")


def look(blocks: Sequence[Block]) -> Sampler:
    sampler = Sampler(SMALL.tile_size_m)
    for block in blocks:
        sampler.take(block)
    return sampler


def blocks(num_points: int = 4000, seed: int = 0) -> list[Block]:
    return list(cut(make_cloud(num_points, seed=seed)))


def training() -> Seen:
    seen = look(blocks()).seen()
    assert seen is not None
    return seen


def changed(name: str, change: object) -> list[Block]:
    return [
        replace(b, attributes=b.attributes | {name: change(b.attributes[name])})  # type: ignore[operator]
        for b in blocks(seed=1)
    ]


def test_more_of_the_same_is_no_drift() -> None:
    assert look(blocks(seed=1)).drift(training(), FEATURES) == []
    assert look(blocks(seed=2)[:3]).drift(training(), FEATURES) == []
    assert look([]).drift(training(), FEATURES) == []
    assert look([]).seen() is None


def test_thinner_and_denser_scans() -> None:
    for num_points in (400, 40_000):
        (said,) = look(blocks(num_points, seed=1)).drift(training(), ("xyz",))
        assert "points per m²" in said
        assert said.endswith(".")


def test_feet_taken_for_metres_are_guessed() -> None:
    metric = training()
    for factor, guessed in ((0.3048**2, True), (1 / 0.3048**2, True), (5.0, False)):
        density = Range(*(factor * value for value in astuple(metric.density)))
        (said,) = look(blocks(seed=1)).drift(replace(metric, density=density), ("xyz",))
        assert ("feet" in said) == guessed


def test_intensities_on_another_scale_or_not_filled() -> None:
    known = training()
    (said,) = look(changed("intensity", lambda v: v * np.float32(3) + 70_000)).drift(known, FEATURES)
    assert "values of intensity are outside" in said
    (said,) = look(changed("intensity", np.zeros_like)).drift(known, FEATURES)
    assert "hardly varies" in said
    assert look(changed("intensity", np.zeros_like)).drift(known, ("xyz", "height")) == [], "not a feature"


def test_flat_ground_is_no_drift_and_towers_are() -> None:
    flat = [replace(b, height=b.height * 0) for b in blocks(seed=1)]
    assert look(flat).drift(training(), FEATURES) == []
    towers = [replace(b, height=b.height * 20 + 100) for b in blocks(seed=1)]
    (said,) = look(towers).drift(training(), FEATURES)
    assert "height" in said


def test_many_blocks_are_thinned_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointcloud.drift._BLOCKS_KEPT", 8)
    seen = look(blocks() * 3).seen()
    assert seen is not None
    assert seen.density.middle == pytest.approx(training().density.middle, rel=0.3)


def test_a_record_comes_back_and_another_is_refused() -> None:
    assert Seen.from_dict(training().to_dict()) == training()
    with pytest.raises(SchemaError, match="not a record of what training saw"):
        Seen.from_dict({"density": 3})
