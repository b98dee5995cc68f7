"""The exact crossings of pulses and solids, against walking down the pulse in small steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointcloud.simulate.buildings import Building, hit
from pointcloud.simulate.rays import Pulses, through_convex, through_ellipsoid, through_paraboloid

STEPS = np.arange(0.0, 16.0, 0.005)
SLOPES = st.one_of(st.just(0.0), st.floats(-0.19, 0.19))


def pulse(x: float, y: float, slope: float) -> Pulses:
    def one(value: float) -> np.ndarray:
        return np.array([[value]])

    return Pulses(one(x), one(y), one(0.0), one(slope), np.zeros((1, 1), np.uint64))


def walked(inside: np.ndarray) -> tuple[float, float] | None:
    """Highest and lowest step that is inside the solid."""
    return (float(STEPS[inside].max()), float(STEPS[inside].min())) if inside.any() else None


def check(found: tuple[np.ndarray, np.ndarray], expected: tuple[float, float] | None) -> None:
    enter, leave = (float(a[0, 0]) for a in found)
    if expected is None:
        # Steps of 5 mm can miss a graze, which is then shorter than two of them.
        assert not enter - leave > 0.011
    else:
        assert enter == pytest.approx(expected[0], abs=0.006)
        assert leave == pytest.approx(expected[1], abs=0.006)


@settings(max_examples=150, deadline=None)
@given(st.floats(-5, 5), st.floats(-5, 5), SLOPES)
def test_ellipsoid(x: float, y: float, slope: float) -> None:
    along = x - slope * STEPS
    inside = (along**2 + y**2) / 3**2 + (STEPS - 8) ** 2 / 5**2 <= 1
    check(through_ellipsoid(pulse(x, y, slope), (0, 0, 8), 3, 5), walked(inside))


@settings(max_examples=150, deadline=None)
@given(st.floats(-6, 6), st.floats(-4, 4), SLOPES)
def test_paraboloid(x: float, y: float, slope: float) -> None:
    along = x - slope * STEPS
    inside = (along**2 + y**2 <= 3**2 / 10 * (14 - STEPS)) & (STEPS >= 4)
    enter, leave = through_paraboloid(pulse(x, y, slope), (0, 0, 14), 3, 10)
    expected = walked(inside)
    # A pulse that grazes the rim of the flat underside may be taken for a miss.
    if expected is not None and expected[0] < 4.01:
        return
    check((enter, leave), expected)


@settings(max_examples=150, deadline=None)
@given(
    st.floats(-12, 12),
    st.floats(-12, 12),
    SLOPES,
    st.floats(0, 3.2),
    st.sampled_from(["flat", "gabled", "hipped"]),
)
def test_buildings_are_their_half_spaces(x: float, y: float, slope: float, angle: float, roof: str) -> None:
    building = Building(1.0, -2.0, 0.5, angle, 7.0, 4.0, 3.0, 2.5, roof, 20000.0)
    p = np.stack([x - slope * STEPS - 1.0, np.full_like(STEPS, y + 2.0), STEPS - 0.5], 1)
    u = np.cos(angle) * p[:, 0] + np.sin(angle) * p[:, 1]
    v = -np.sin(angle) * p[:, 0] + np.cos(angle) * p[:, 1]
    top = {
        "flat": np.full_like(u, 3.0),
        "gabled": 3.0 + 2.5 * (1 - np.abs(v) / 4.0),
        "hipped": 3.0 + 2.5 / 4.0 * np.minimum(4.0 - np.abs(v), 7.0 - np.abs(u)),
    }[roof]
    inside = (np.abs(u) <= 7.0) & (np.abs(v) <= 4.0) & (p[:, 2] <= top)
    one = pulse(x, y, slope)
    check(through_convex(one, building.planes(), (1.0, -2.0, 0.5)), walked(inside))
    met, height, _ = hit(building, one)
    if inside.sum() > 4:
        assert met[0, 0]
        assert height[0, 0] <= 0.5 + building.height + 1e-9


def test_a_window_holds_every_pulse_that_can_touch_the_object() -> None:
    rng = np.random.default_rng(0)
    x = np.linspace(0, 40, 81)[None, :] + rng.uniform(-0.1, 0.1, (81, 81))
    y = np.linspace(0, 40, 81)[:, None] + rng.uniform(-0.1, 0.1, (81, 81))
    pulses = Pulses(x, y, np.zeros((81, 81)), (x - 20) / 100, np.zeros((81, 81), np.uint64))
    enter, _ = through_ellipsoid(pulses, (31, 12, 10), 3, 5)
    window = pulses.window(31, 12, 3, 15)
    near, _ = through_ellipsoid(pulses[window], (31, 12, 10), 3, 5)
    assert np.isfinite(enter).sum() > 50
    assert np.isfinite(near).sum() == np.isfinite(enter).sum()
    assert near.size < enter.size / 4
    assert pulses[pulses.window(500, 500, 3, 15)].x.size == 0
