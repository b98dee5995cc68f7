"""The simulated survey: tiles that fit, pulses that hang together, and a scene that could be one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointcloud.errors import PointloomError
from pointcloud.simulate import flight
from pointcloud.simulate.landscape import objects_near
from pointcloud.simulate.survey import SurveyConfig, simulate_chunks, simulate_cloud, simulate_tile
from pointcloud.simulate.terrain import Terrain

Points = dict[str, np.ndarray]


def records(*tiles: Points) -> np.ndarray:
    """All points of all tiles with every dimension, sorted: two equal sets give equal arrays."""
    names = ["gps_time", "X", "Y", "Z", *sorted(set(tiles[0]) - {"gps_time", "X", "Y", "Z"})]
    rows = np.stack([np.concatenate([t[name] for t in tiles]).astype(np.float64) for name in names], 1)
    return rows[np.lexsort(rows.T[::-1])]


@pytest.fixture(scope="module")
def config() -> SurveyConfig:
    return SurveyConfig(tiles=(1, 1), tile_size_m=200.0)


@pytest.fixture(scope="module")
def points(config: SurveyConfig) -> Points:
    return simulate_tile(config, 0, 0)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.sampled_from([(2, 2), (3, 1), (1, 4), (3, 3)]),
    density=st.sampled_from([1.5, 4.0, 9.0]),
    corner=st.tuples(st.integers(-2000, 2000), st.integers(-2000, 2000)),
    noise=st.sampled_from([0.0, 0.02]),
)
def test_tiles_hold_the_points_of_the_whole(
    seed: int, cuts: tuple[int, int], density: float, corner: tuple[int, int], noise: float
) -> None:
    """Whatever the cut, the union of the tiles is the survey, point by point and in every dimension."""
    side = 24.0
    origin = (650_000.0 + corner[0], 6_860_000.0 + corner[1])
    small = SurveyConfig(seed, side, cuts, density, origin, noise_fraction=noise)
    # The whole is square: it is cut down to the rectangle the small tiles cover.
    whole = simulate_tile(replace(small, tiles=(1, 1), tile_size_m=side * max(cuts)), 0, 0)
    limit = round(side / small.scale)
    inside = (whole["X"] < cuts[0] * limit) & (whole["Y"] < cuts[1] * limit)
    tiles = [simulate_tile(small, i, j) for i in range(cuts[0]) for j in range(cuts[1])]
    np.testing.assert_array_equal(records(*tiles), records({k: v[inside] for k, v in whole.items()}))


def test_edges_are_half_open(config: SurveyConfig) -> None:
    cut = replace(config, tiles=(3, 3), tile_size_m=20.0, points_per_m2=4.0)
    points = simulate_tile(cut, 1, 2)
    for axis, low in (("X", 2000), ("Y", 4000)):
        assert points[axis].min() >= low
        assert points[axis].max() < low + 2000


def test_chunks_are_bounded_and_change_nothing(
    config: SurveyConfig, points: Points, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight, "_CHUNK", 20_000)
    chunks = list(simulate_chunks(config, 0, 0))
    assert len(chunks) > 10
    assert max(len(chunk["X"]) for chunk in chunks) < 60_000
    for name, values in points.items():
        np.testing.assert_array_equal(np.concatenate([chunk[name] for chunk in chunks]), values)


def test_another_seed_is_another_survey(config: SurveyConfig) -> None:
    small = replace(config, tile_size_m=20.0)
    assert not np.array_equal(
        simulate_tile(small, 0, 0)["Z"], simulate_tile(replace(small, seed=1), 0, 0)["Z"]
    )


def test_density_is_pulses_per_square_metre(config: SurveyConfig, points: Points) -> None:
    first = np.count_nonzero(points["return_number"] == 1)
    # Water swallows pulses, and tile edges fall anywhere in the pattern of overlaps.
    assert first / config.tile_size_m**2 == pytest.approx(config.points_per_m2, rel=0.1)


def test_returns_of_a_pulse_belong_together(config: SurveyConfig, points: Points) -> None:
    # Pulses lean: one near the tile's edge leaves some of its returns in the next tile.
    _, pulse = np.unique(points["gps_time"], return_inverse=True)
    near_edge = (points["X"] < 1500) | (points["X"] > 18_500)
    inner = np.bincount(pulse, near_edge)[pulse] == 0
    p = {name: values[inner] for name, values in points.items()}
    _, start, counts = np.unique(p["gps_time"], return_index=True, return_counts=True)
    assert counts.max() >= 4
    pulse = np.repeat(np.arange(len(counts)), counts)
    np.testing.assert_array_equal(p["number_of_returns"], counts[pulse])
    np.testing.assert_array_equal(p["return_number"], np.arange(len(pulse)) - start[pulse] + 1)
    same = np.diff(pulse) == 0
    assert (np.diff(p["Z"])[same] < 0).all(), "later returns are lower"
    assert (np.diff(p["point_source_id"].astype(int))[same] == 0).all()
    lean = np.abs(np.diff(p["X"])[same]) / -np.diff(p["Z"])[same].clip(max=-1)
    assert np.median(lean) < flight.MAX_SLOPE


def test_flight_lines(points: Points) -> None:
    assert (np.diff(points["gps_time"]) >= 0).all()
    assert set(np.unique(points["point_source_id"])) == {1, 2, 3}
    for line, direction in ((1, 1), (2, -1)):
        of_line = points["point_source_id"] == line
        slope = np.polyfit(points["gps_time"][of_line] - 3e8, points["Y"][of_line], 1)[0]
        assert np.sign(slope) == direction, "lines are flown back and forth"
        x = points["X"][of_line]
        right = points["scan_angle"][of_line] > 0
        east = x > (line - 1) * flight.LINE_SPACING_M * 100
        assert np.mean(right == (east if direction == 1 else ~east)) > 0.99
    both = (points["X"] > 4500) & (points["X"] < 7500)
    assert set(np.unique(points["point_source_id"][both])) == {1, 2}, "swaths overlap"
    assert 0 < points["edge_of_flight_line"].mean() < 0.02
    assert points["scan_direction_flag"].mean() == pytest.approx(0.5, abs=0.1)


def test_the_default_survey_has_every_class(points: Points) -> None:
    codes, counts = np.unique(points["classification"], return_counts=True)
    assert set(codes) == {2, 3, 4, 5, 6, 9, 14, 15}
    assert counts.min() > 50
    assert counts[0] > len(points["X"]) / 3


def absolute(
    config: SurveyConfig, points: Points, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y, z = (points[axis][mask] * config.scale + o for axis, o in zip("XYZ", config.offsets, strict=True))
    return x, y, z


def test_ground_and_water_lie_on_the_terrain(config: SurveyConfig, points: Points) -> None:
    terrain = Terrain(config.seed)
    for code, is_water in ((2, False), (9, True)):
        x, y, z = absolute(config, points, points["classification"] == code)
        height, water = terrain.surface(x, y)
        off = np.abs(z - height) < 0.08
        # Rounding to the stored grid moves a point over the shoreline now and then.
        assert off.mean() > 0.999
        assert (water == is_water).mean() > 0.995
    (pond,) = terrain.ponds(x.min(), y.min(), x.max(), y.max())
    assert np.abs(z - pond.level).max() < 0.1, "water is flat"
    around = np.random.default_rng(0).uniform(-45, 45, (20_000, 2)) + np.array([pond.x, pond.y])
    basin = around[pond.shore_ratio(*around.T) < 1.7]
    assert terrain.surface(*basin.T)[0].min() >= pond.level, "no ground under the water's level"
    assert np.median(points["intensity"][points["classification"] == 9]) < 3000


def test_vegetation_classes_are_heights(config: SurveyConfig, points: Points) -> None:
    for code, low, high in ((3, 0.0, 0.5), (4, 0.5, 1.5), (5, 1.5, 30.0)):
        x, y, z = absolute(config, points, points["classification"] == code)
        above = z - Terrain(config.seed).surface(x, y)[0]
        # A leaning pulse's own ground is up to 5 m away from the ground below its return.
        slack = 0.1 if code < 5 else 1.0
        assert ((above > low - slack) & (above < high + slack)).mean() > 0.99
    several = points["number_of_returns"] > 1
    assert (points["classification"][several & (points["return_number"] == 1)] >= 4).mean() > 0.95


def test_buildings_are_solid(config: SurveyConfig, points: Points) -> None:
    """Every building point lies on a wall or roof of a building, and nothing lies inside one."""
    x0, y0 = config.origin
    buildings = objects_near(Terrain(config.seed), x0, y0, x0 + 200, y0 + 200).buildings
    assert {b.roof for b in buildings} == {"flat", "gabled", "hipped"}
    x, y, z = absolute(config, points, np.ones(len(points["X"]), bool))
    depth = np.full(len(x), np.inf)
    for b in buildings:
        planes = b.planes()
        outside = np.stack([x - b.x, y - b.y, z - b.base], 1) @ planes[:, :3].T - planes[:, 3]
        depth = np.minimum(depth, outside.max(axis=1))
    assert (np.abs(depth[points["classification"] == 6]) < 0.1).mean() > 0.999
    free = ~np.isin(points["classification"], (6, 2, 3))
    assert depth[free].min() > -0.1
    # Ground may touch a wall's foot, no more.
    assert depth[points["classification"] == 2].min() > -0.6


def test_wires_hang_between_pylons(config: SurveyConfig, points: Points) -> None:
    x, y, z = absolute(config, points, points["classification"] == 14)
    above = z - Terrain(config.seed).surface(x, y)[0]
    assert above.min() > 12
    assert above.max() < 26
    assert np.ptp(above) > 2, "wires sag"
    tx, ty, tz = absolute(config, points, points["classification"] == 15)
    assert (tz - Terrain(config.seed).surface(tx, ty)[0]).max() == pytest.approx(24, abs=1)
    # One straight line: the rest of a fit is no more than the cross-arm.
    east = x - config.origin[0]
    assert np.abs(y - np.polyval(np.polyfit(east, y, 1), east)).max() < 5


def test_noise_is_an_option(config: SurveyConfig, points: Points) -> None:
    assert not np.isin(points["classification"], (7, 18)).any()
    noisy = simulate_tile(replace(config, tile_size_m=50.0, noise_fraction=0.05), 0, 0)
    is_noise = np.isin(noisy["classification"], (7, 18))
    assert 0.03 < is_noise.mean() < 0.06
    assert set(np.unique(noisy["classification"][is_noise])) == {7, 18}
    assert (noisy["number_of_returns"][is_noise] == 1).all()


def test_cloud_is_the_tile(config: SurveyConfig) -> None:
    small = replace(config, tiles=(2, 2), tile_size_m=25.0)
    cloud, points = simulate_cloud(small, 1, 0), simulate_tile(small, 1, 0)
    assert cloud.crs is not None
    assert cloud.crs.to_epsg() == 2154
    np.testing.assert_array_equal(cloud.xyz[:, 0], points["X"] * 0.01 + 652_000.0)
    np.testing.assert_array_equal(cloud.attributes["classification"], points["classification"])
    assert cloud.xyz[:, 0].min() >= 652_025.0


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"seed": -1}, "seed"),
        ({"tile_size_m": 5.0}, "tile_size_m"),
        ({"tile_size_m": 100.005}, "tile_size_m"),
        ({"tile_size_m": float("nan")}, "tile_size_m"),
        ({"scale": 0.0}, "scale"),
        ({"tiles": (0, 1)}, "tiles"),
        ({"tiles": (1, 2000)}, "tiles"),
        ({"points_per_m2": 0.0}, "points_per_m2"),
        ({"origin": (float("inf"), 0.0)}, "origin"),
        ({"noise_fraction": 0.9}, "noise_fraction"),
        ({"epsg": 4326}, "projected"),
        ({"epsg": 2225}, "metres"),
        ({"epsg": 1}, "CRS"),
    ],
)
def test_bad_settings_are_named(setting: dict, named: str) -> None:
    with pytest.raises(PointloomError, match=named):
        SurveyConfig(**setting)


@pytest.mark.parametrize("tile", [(-1, 0), (2, 0), (0, 2)])
def test_no_such_tile(tile: tuple[int, int]) -> None:
    with pytest.raises(PointloomError, match="no tile"):
        next(simulate_chunks(SurveyConfig(), *tile))
