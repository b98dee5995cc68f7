"""Whether lengths of a scan are likely in another unit than its CRS says: feet where it says metres, or the reverse.

No scan tells its unit but in its CRS. What tells on it is that two things are off together that have nothing else in
common: points lie 3.28 times as far apart as in the training's scans, and roofs and trees are 3.28 times as high.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

FOOT_M = 0.3048
_FOOT = log(1 / FOOT_M)
_METRE_M = 0.9  # a unit longer than this is no foot
_SPACING = 0.42  # how far surveys of one kind lie apart, in logarithms: a factor of 1.5
_HEIGHTS = (
    0.35,
    2.0,
)  # heights off so far, in logarithms of the right sign, speak for a unit: 1.4 to 7.4 times
_HEIGHTS_ALONE = 0.3  # nothing else speaks for it: from 2.4 to 4.4 times

FEET, METRES = "feet taken for metres", "metres taken for feet"


def likely_unit(
    spacing: float | None, heights: Sequence[float], units: tuple[float, float]
) -> tuple[str, bool] | None:
    """What was likely taken for what, `FEET` or `METRES`; None where nothing speaks for it.

    Args:
        spacing: mean distance between the points of the scan, over that in the training's; None: not known.
        heights: the same of heights above ground: of the middle and of the highest.
        units: metres of a horizontal and a vertical unit, as the scan's CRS says or for want of one is assumed:
            only what is called metres can be feet.

    Returns:
        And whether heights alone are in that unit.
    """
    ratios = [log(max(ratio, 1e-9)) for ratio in heights]
    if spacing is not None:
        sign = 1 if units[0] > _METRE_M else -1
        far = sign * log(max(spacing, 1e-9))
        if abs(far - _FOOT) < _SPACING and _HEIGHTS[0] < sign * ratios[-1] < _HEIGHTS[1]:
            return (FEET if sign > 0 else METRES), False
        if abs(far) > _SPACING:
            return None
    # Without a word from the points' distances, or against it, heights have to be very like.
    sign = 1 if units[1] > _METRE_M else -1
    if all(abs(sign * ratio - _FOOT) < _HEIGHTS_ALONE for ratio in ratios):
        return (FEET if sign > 0 else METRES), True
    return None


def is_foot_apart(spacing: float, units: tuple[float, float]) -> bool:
    """Whether a scan's points lie as far apart as in a wrong unit, whatever its heights."""
    sign = 1 if units[0] > _METRE_M else -1
    return exp(_FOOT - _SPACING / 2) < spacing**sign < exp(_FOOT + _SPACING / 2)
