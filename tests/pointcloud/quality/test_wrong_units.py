"""A wrong unit is told by two things that are off together; one of them alone is another landscape or survey."""

from __future__ import annotations

import pytest

from pointcloud.quality.wrong_units import FEET, METRES, is_foot_apart, likely_unit

FOOT = 1 / 0.3048
IN_METRES, IN_FEET = (1.0, 1.0), (0.3048, 0.3048)


@pytest.mark.parametrize(
    ("spacing", "height", "units", "expected"),
    [
        (FOOT, FOOT, IN_METRES, (FEET, False)),
        (0.7 * FOOT, 0.6 * FOOT, IN_METRES, (FEET, False)),
        (1 / FOOT, 1 / FOOT, IN_FEET, (METRES, False)),
        (1 / FOOT, 1 / FOOT, IN_METRES, None),  # metres are no feet: a dense survey of flat land
        (FOOT, FOOT, IN_FEET, None),
        (FOOT, 1.0, IN_METRES, None),  # a thin survey
        (FOOT, 1 / FOOT, IN_METRES, None),
        (1.0, 1.0, IN_METRES, None),
        (9.0, FOOT, IN_METRES, None),
        (1.0, FOOT, IN_METRES, (FEET, True)),
        (1.0, 1 / FOOT, (1.0, 0.3048), (METRES, True)),
        (1.0, 1 / FOOT, IN_METRES, None),
        (None, FOOT, IN_METRES, (FEET, True)),
    ],
)
def test_what_was_likely_taken_for_what(
    spacing: float | None, height: float, units: tuple[float, float], expected: object
) -> None:
    assert likely_unit(spacing, (height, height), units) == expected


def test_heights_alone_have_to_be_off_from_the_ground_to_the_top() -> None:
    assert likely_unit(1.0, (1.0, FOOT), IN_METRES) is None, "towers"
    assert likely_unit(1.0, (FOOT, FOOT), IN_METRES) is not None


def test_distances_alone_are_a_hint() -> None:
    assert is_foot_apart(FOOT, IN_METRES)
    assert is_foot_apart(1 / FOOT, IN_FEET)
    assert not is_foot_apart(1 / FOOT, IN_METRES)
    assert not is_foot_apart(2.0, IN_METRES)
