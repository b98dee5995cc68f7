"""The objects of the simulated landscape: houses, woods, meadows, orchards, halls; a function of (seed, x, y)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pointcloud.simulate import draws
from pointcloud.simulate.buildings import Building
from pointcloud.simulate.powerline import CORRIDOR_M, lines_near
from pointcloud.simulate.terrain import Terrain
from pointcloud.simulate.vegetation import Tree

PLOT_M = 50.0
ROAD_PERIOD_M = 200.0
ROAD_HALF_WIDTH_M = 3.0
OBJECT_REACH_M = 8.0
"""No object reaches further than this over the edge of its plot."""

Use = Literal["house", "wood", "meadow", "orchard", "hall"]
USES: tuple[Use, ...] = ("house", "wood", "meadow", "orchard", "hall")
# Per use: share of pulses that end in low vegetation, intensity of the ground. Halls stand on asphalt.
LOW_VEGETATION = np.array([0.10, 0.18, 0.30, 0.18, 0.02])
GROUND_INTENSITY = np.array([34000.0, 26000.0, 38000.0, 35000.0, 13000.0])
ROAD_INTENSITY = 11000.0


@dataclass
class Objects:
    """The buildings and trees of one or more plots."""

    buildings: list[Building] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)


def use_of_plot(seed: int, column: int, row: int) -> int:
    """Index into `USES`. Every 2 × 2 plots hold a house, a wood, a meadow and one more of any kind."""
    rng = draws.generator(seed, 3, column // 2, row // 2)
    uses = [0, 1, 2, int(rng.choice([0, 0, 1, 3, 4]))]
    return uses[rng.permutation(4)[2 * (column % 2) + row % 2]]


def on_road(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether (x, y) (…) lies on a road: a straight grid, along the edges of plots."""
    half = ROAD_HALF_WIDTH_M / ROAD_PERIOD_M
    across = [(v + ROAD_HALF_WIDTH_M) / ROAD_PERIOD_M for v in (x, y)]
    return (across[0] - np.floor(across[0]) < 2 * half) | (across[1] - np.floor(across[1]) < 2 * half)


def objects_near(terrain: Terrain, x0: float, y0: float, x1: float, y1: float) -> Objects:
    """All objects that reach into the box (metres), and some that do not."""
    reach = OBJECT_REACH_M
    objects = Objects()
    for column in range(int(np.floor((x0 - reach) / PLOT_M)), int(np.floor((x1 + reach) / PLOT_M)) + 1):
        for row in range(int(np.floor((y0 - reach) / PLOT_M)), int(np.floor((y1 + reach) / PLOT_M)) + 1):
            plot = _plot_objects(terrain, column, row)
            objects.buildings += plot.buildings
            objects.trees += plot.trees
    return objects


def _plot_objects(terrain: Terrain, column: int, row: int) -> Objects:
    rng = draws.generator(terrain.seed, 4, column, row)
    west, south = column * PLOT_M, row * PLOT_M
    use = USES[use_of_plot(terrain.seed, column, row)]
    if use == "house":
        plot = _house(rng, west, south)
    elif use == "hall":
        plot = _hall(rng, west, south)
    else:
        plot = Objects(trees=_TREES[use](rng, west, south))
    return _placed(terrain, plot)


def _placed(terrain: Terrain, plot: Objects) -> Objects:
    """The objects that stand neither in water nor under a power line, set on their ground."""
    everything: list[Building | Tree] = [*plot.buildings, *plot.trees]
    if not everything:
        return plot
    x = np.array([o.x for o in everything])
    y = np.array([o.y for o in everything])
    radius = np.array([o.radius for o in everything])
    free = np.ones(len(everything), bool)
    box = (float(x.min()) - 20, float(y.min()) - 20, float(x.max()) + 20, float(y.max()) + 20)
    for line in lines_near(terrain, *box):
        free &= np.abs(line.across(x, y)) > CORRIDOR_M + radius
    for pond in terrain.ponds(*box):
        free &= pond.shore_ratio(x, y) > 1.05 + radius / pond.radius
    z, _ = terrain.surface(x, y)
    count = len(plot.buildings)
    buildings = [_on(b, float(z[i])) for i, b in enumerate(plot.buildings) if free[i]]
    trees = [
        Tree(t.x, t.y, float(z[count + i]), t.height, t.radius, t.conifer)
        for i, t in enumerate(plot.trees)
        if free[count + i]
    ]
    return Objects(buildings, trees)


def _on(b: Building, ground: float) -> Building:
    # `base` is relative until here: a storey on a hall's roof stands on the hall, not on the ground.
    return Building(
        b.x, b.y, ground + b.base, b.angle, b.half_length, b.half_width, b.eaves, b.rise, b.roof, b.brightness
    )


def _house(rng: np.random.Generator, west: float, south: float) -> Objects:
    x, y = west + rng.uniform(20, 30), south + rng.uniform(20, 30)
    angle = rng.uniform(0, np.pi)
    half_length, half_width = rng.uniform(5.5, 8.5), rng.uniform(3.8, 5.2)
    pitch = np.tan(np.radians(rng.uniform(28, 46)))
    roof: Literal["gabled", "hipped"] = "hipped" if rng.random() < 0.4 else "gabled"
    eaves = rng.choice([3.0, 5.6]) + rng.uniform(-0.2, 0.4)
    brightness = rng.uniform(15000, 26000)
    house = Building(
        x, y, 0.0, angle, half_length, half_width, eaves, pitch * half_width, roof, float(brightness)
    )
    away = angle + rng.choice([-1, 1]) * np.pi / 2
    distance = half_width + 2.4
    garage = Building(
        x + distance * np.cos(away),
        y + distance * np.sin(away),
        0.0,
        angle,
        3.2,
        2.6,
        2.7,
        0.0,
        "flat",
        12000.0,
    )
    trees = []
    for tx, ty in rng.uniform(4, PLOT_M - 4, (14, 2)) + np.array([west, south]):
        radius = rng.uniform(1.4, 3.2)
        if np.hypot(tx - x, ty - y) > house.radius + 5 + radius:
            trees.append(Tree(tx, ty, 0.0, radius * rng.uniform(2.0, 3.0), radius, bool(rng.random() < 0.2)))
    # A clipped hedge along one side of the plot, sometimes knee-high.
    height = rng.choice([0.8, 1.3, 2.0])
    side = rng.integers(2)
    for step in np.arange(5.0, PLOT_M - 4.0, 1.3):
        hx, hy = ((step, 4.0), (4.0, step))[side]
        trees.append(Tree(west + hx, south + hy, 0.0, height * rng.uniform(0.85, 1.1), 0.9, False))
    return Objects([house, garage] if rng.random() < 0.7 else [house], trees)


def _hall(rng: np.random.Generator, west: float, south: float) -> Objects:
    x, y = west + 25 + rng.uniform(-3, 3), south + 25 + rng.uniform(-3, 3)
    angle = rng.choice([0.0, np.pi / 2]) + rng.uniform(-0.1, 0.1)
    height = rng.uniform(6, 10)
    brightness = float(rng.uniform(28000, 40000))
    hall = Building(x, y, 0.0, angle, 17.0, 10.0, height, 0.0, "flat", brightness)
    plant = Building(
        x + rng.uniform(-6, 6),
        y + rng.uniform(-3, 3),
        0.0,
        angle,
        3.0,
        2.0,
        height + 2.2,
        0.0,
        "flat",
        20000.0,
    )
    return Objects([hall, plant])


def _wood(rng: np.random.Generator, west: float, south: float) -> list[Tree]:
    spacing = PLOT_M / 8
    trees = []
    for column in range(8):
        for row in range(8):
            dx, dy = rng.uniform(0.15, 0.85, 2)
            conifer = bool(rng.random() < 0.35)
            height = rng.uniform(13, 24) if conifer else rng.uniform(9, 19)
            radius = height * (0.13 if conifer else 0.2) * rng.uniform(0.9, 1.15)
            x, y = west + (column + dx) * spacing, south + (row + dy) * spacing
            # The outermost ring is thinned so that woods do not end in a ruled line or on a road.
            if 4 < x - west < PLOT_M - 4 and 4 < y - south < PLOT_M - 4:
                trees.append(Tree(x, y, 0.0, height, radius, conifer))
            elif rng.random() < 0.5:
                trees.append(Tree(x, y, 0.0, rng.uniform(0.6, 2.5), rng.uniform(0.7, 1.5), False))
    return trees


def _orchard(rng: np.random.Generator, west: float, south: float) -> list[Tree]:
    rows = np.arange(7.0, PLOT_M - 5, 6.5)
    return [
        Tree(west + x, south + y, 0.0, rng.uniform(3.4, 4.6), rng.uniform(1.5, 2.1), False)
        for x in rows
        for y in rows
        if rng.random() < 0.92
    ]


def _meadow(rng: np.random.Generator, west: float, south: float) -> list[Tree]:
    places = rng.uniform(8, PLOT_M - 8, (int(rng.integers(0, 3)), 2)) + np.array([west, south])
    return [Tree(x, y, 0.0, rng.uniform(8, 14), rng.uniform(3, 4.5), False) for x, y in places]


_TREES = {"wood": _wood, "orchard": _orchard, "meadow": _meadow}
