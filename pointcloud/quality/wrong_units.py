"""Whether a scan's lengths are likely in another unit than its CRS says: feet where it says metres, or the reverse.

A scan says its unit only in its CRS. A wrong unit shows in two quantities that are otherwise independent: points lie
3.28 times as far apart as in the scans that the network was trained on, and roofs and trees are 3.28 times as high.
Ratios are compared by their logarithms, so that too large and too small count alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

from pointcloud.crs import FOOT_M

_FOOT = log(1 / FOOT_M)  # 1.19; the two kinds of feet do not differ here
_METRE_M = 0.9
"""Units longer than this count as metres, shorter ones as feet."""
_SPACING = 0.42
"""How far the spacings of two sound scans may differ: by a factor of 1.5, which is 2.3 times the density. A ratio so
near to that of a foot lies between 2.2 and 5.0; the two ranges do not touch."""
_HEIGHTS = (0.35, 2.0)
"""Together with the spacing, heights speak for a unit from 1.4 to 7.4 times too large: they differ more between
landscapes than spacings between surveys, and need only point the same way."""
_HEIGHTS_ALONE = 0.3
"""Without the spacing, heights have to be from 2.4 to 4.4 times too large, in the middle and at the top."""

FEET, METRES = "feet taken for metres", "metres taken for feet"


def likely_unit(
    spacing: float | None, heights: Sequence[float], units: tuple[float, float]
) -> tuple[str, bool] | None:
    """Which unit was likely taken for which, and where.

    Args:
        spacing: mean distance between the points of the scan, divided by that of the training's scans; None: not known.
        heights: the same ratio of heights above ground: of the median, and of the highest points.
        units: metres in a horizontal and in a vertical unit, as the scan's CRS says, or 1 where it has none.

    Returns:
        `FEET` or `METRES`, and whether only the heights are in that unit; None where both units seem right. Feet can be
        taken for metres only where the CRS says metres, and metres for feet only where it says feet.
    """
    ratios = [log(max(ratio, 1e-9)) for ratio in heights]
    if spacing is not None:
        sign = 1 if units[0] > _METRE_M else -1
        far = sign * log(max(spacing, 1e-9))
        if abs(far - _FOOT) < _SPACING and _HEIGHTS[0] < sign * ratios[-1] < _HEIGHTS[1]:
            return (FEET if sign > 0 else METRES), False
        if abs(far) > _SPACING:
            return None
    # The spacing is not known, or is right: heights alone have to fit a foot closely.
    sign = 1 if units[1] > _METRE_M else -1
    if all(abs(sign * ratio - _FOOT) < _HEIGHTS_ALONE for ratio in ratios):
        return (FEET if sign > 0 else METRES), True
    return None


def is_foot_apart(spacing: float, units: tuple[float, float]) -> bool:
    """Whether the spacing alone is that of a wrong unit, by a factor between 2.7 and 4.0, whatever the heights.

    Args:
        spacing, units: as in `likely_unit`.
    """
    sign = 1 if units[0] > _METRE_M else -1
    return exp(_FOOT - _SPACING / 2) < spacing**sign < exp(_FOOT + _SPACING / 2)
