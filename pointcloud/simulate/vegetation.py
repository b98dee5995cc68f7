"""Trees and shrubs of the simulated landscape, and the several returns a pulse gives on its way down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pointcloud.simulate import draws
from pointcloud.simulate.rays import Pulses, through_ellipsoid, through_paraboloid

MEDIUM_FROM_M = 0.5
HIGH_FROM_M = 1.5
"""Heights over ground where classes 4 and 5 begin. ASPRS leaves them open; IGN LiDAR HD uses these."""


@dataclass(frozen=True)
class Tree:
    """A crown on an unseen stem: a paraboloid (conifer) or an ellipsoid. Metres; `ground` is absolute."""

    x: float
    y: float
    ground: float
    height: float
    radius: float
    conifer: bool


class Canopy(NamedTuple):
    """Heights (…) float64 where pulses enter and leave the highest crown they meet; -inf without one."""

    top: np.ndarray
    bottom: np.ndarray


class Returns(NamedTuple):
    """Some returns of some pulses: flat pulse index (R,) int64, height (R,) in metres, intensity (R,)."""

    pulse: np.ndarray
    z: np.ndarray
    intensity: np.ndarray


def canopy(trees: list[Tree], pulses: Pulses) -> Canopy:
    """The highest crown over every pulse. Where crowns overlap, the lower one is hidden."""
    top = np.full(pulses.x.shape, -np.inf)
    bottom = top.copy()
    for tree in trees:
        window = pulses.window(tree.x, tree.y, tree.radius, tree.height + 2)
        near = pulses[window]
        if not near.x.size:
            continue
        if tree.conifer:
            crown = 0.85 * tree.height
            apex = (tree.x, tree.y, tree.ground + tree.height)
            enter, leave = through_paraboloid(near, apex, tree.radius, crown)
        else:
            half = 0.36 * tree.height
            centre = (tree.x, tree.y, tree.ground + tree.height - half)
            enter, leave = through_ellipsoid(near, centre, tree.radius, half)
        higher = enter > top[window]
        top[window] = np.where(higher, enter, top[window])
        bottom[window] = np.where(higher, leave, bottom[window])
    return Canopy(top, bottom)


def crown_returns(crowns: Canopy, floor: np.ndarray, pulses: Pulses) -> tuple[list[Returns], np.ndarray]:
    """Returns from crowns, at most three per pulse, and which pulses go on to what lies below.

    Args:
        floor: (…) float64, height in metres of the solid surface under the canopy.

    Returns:
        The first, second and third returns, top down, and `goes_on` (…) bool: True where the pulse also
        gives a return from the surface below, which is everywhere there is no crown.
    """
    pulse = np.flatnonzero((crowns.top > floor + 0.1).ravel())
    keys = pulses.keys.ravel()[pulse]
    ground = floor.ravel()[pulse]
    top = crowns.top.ravel()[pulse]
    depth = top - np.maximum(crowns.bottom.ravel()[pulse], ground + 0.05)
    # Leaves are a rough shell: pulses enter between twigs, seldom deeper than a metre.
    first = top - np.minimum(-0.3 * np.log1p(-draws.uniform(keys, 20)), 0.33 * depth)
    # The receiver cannot part echoes closer than its pulse length, so later returns keep their distance.
    chance, fraction = draws.uniform_pair(keys, 21)
    second = first - 0.9 - fraction * 0.6 * depth
    has_second = (chance < 0.5) & (second > top - depth)
    chance, fraction = draws.uniform_pair(keys, 22)
    third = second - 0.9 - fraction * 0.5 * depth
    has_third = has_second & (chance < 0.35) & (third > top - depth)
    lowest = np.where(has_third, third, np.where(has_second, second, first))
    # The deeper the crown, the less light is left for the ground; 0.8 m is again the pulse length.
    through = (draws.uniform(keys, 23) < 0.15 + 0.55 * np.exp(-depth / 8)) & (lowest - ground > 0.8)
    goes_on = np.ones(floor.size, bool)
    goes_on[pulse] = through
    layers = [
        Returns(pulse[has], z[has], np.full(int(has.sum()), 30000.0))
        for has, z in ((np.ones(len(pulse), bool), first), (has_second, second), (has_third, third))
    ]
    return layers, goes_on.reshape(floor.shape)


def height_class(height: np.ndarray) -> np.ndarray:
    """ASPRS codes (…) uint8 of vegetation by height (…) over ground in metres: 3 low, 4 medium, 5 high."""
    return (3 + (height >= MEDIUM_FROM_M) + (height >= HIGH_FROM_M)).astype(np.uint8)
