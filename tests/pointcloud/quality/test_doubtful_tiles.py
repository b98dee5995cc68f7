"""Doubt by tile: every point counts once, the worst tiles are kept with their points, the file opens as a map."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyproj import CRS

from pointcloud.grid.block_config import BlockConfig
from pointcloud.quality.doubtful_tiles import (
    LEAST_POINTS,
    LEVELS,
    NUM_WORST_TILES,
    TileDoubts,
    read_tiles,
    read_worst_tiles,
)

CONFIG = BlockConfig(tile_size_m=4, halo_m=1, voxel_size_m=1)
EXTENT = np.array([[0.0, 0.0, 0.0], [24.0, 3.0, 5.0]])
CRS_M = CRS.from_epsg(2154)


def make_doubts(num_tiles: int = 6, seed: int = 0) -> tuple[TileDoubts, dict[str, np.ndarray]]:
    """Six tiles side by side, tile n as sure as 0.4 + n / 10, taken in two regions."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform((0, 0, 0), (4 * num_tiles, 3, 5), (60 * num_tiles, 3))
    voxel, counts = np.floor(xyz).astype(np.int64), rng.integers(1, 4, len(xyz))
    tile = voxel[:, 0] // 4
    labels = {"classes": (tile % 3).astype(np.uint8), "confidence": (0.4 + tile / 10).astype(np.float32)}
    doubts = TileDoubts("a.laz", CONFIG, CRS_M, EXTENT, 3)
    for rows in (np.flatnonzero(tile < 2), np.flatnonzero(tile >= 2)):
        doubts.add(xyz[rows], voxel[rows], counts[rows], {name: v[rows] for name, v in labels.items()})
    return doubts, {"xyz": xyz, "tile": tile, "counts": counts, **labels}


def test_every_point_counts_once(tmp_path: Path) -> None:
    doubts, points = make_doubts()
    uri = str(tmp_path / "tiles/a.laz.parquet")
    doubts.write(uri)
    tiles = read_tiles(uri).to_pylist()
    assert [(row["i"], row["j"]) for row in tiles] == [(n, 0) for n in range(6)]
    for n, row in enumerate(tiles):
        here = points["tile"] == n
        assert row["num_points"] == points["counts"][here].sum() == row["class_points"][n % 3]
        assert row["confidence"] == pytest.approx(0.4 + n / 10)
        assert row["x"] == pytest.approx(np.average(points["xyz"][here, 0], weights=points["counts"][here]))
    assert doubts.confidence == pytest.approx(np.average(points["confidence"], weights=points["counts"]))
    # The tiles are 4 m wide, the scan 3: ground beyond the scan is not labelled.
    assert doubts.area_km2 == pytest.approx(24 * 3 / 1e6)


def test_the_worst_tiles_come_with_their_points(tmp_path: Path) -> None:
    doubts, points = make_doubts()
    doubts.write(uri := str(tmp_path / "a.parquet"))
    places = read_worst_tiles(uri)
    assert [place.tile for place in places] == [(n, 0) for n in range(NUM_WORST_TILES)]
    here = points["tile"] == 0
    np.testing.assert_array_equal(np.sort(places[0].xyz, axis=0), np.sort(points["xyz"][here], axis=0))
    assert set(places[1].classes) == {1}
    assert places[1].confidences.dtype == np.float32


def test_a_tile_with_a_few_points_is_no_place_to_go_to(tmp_path: Path) -> None:
    doubts = TileDoubts("a.laz", CONFIG, None, EXTENT, 2)
    few = LEAST_POINTS - 1
    labels = {"classes": np.zeros(few, np.uint8), "confidence": np.full(few, 0.1, np.float32)}
    doubts.add(np.ones((few, 3)), np.ones((few, 3), np.int64), np.ones(few, np.int64), labels)
    doubts.write(uri := str(tmp_path / "a.parquet"))
    assert len(read_tiles(uri)) == 1
    assert read_worst_tiles(uri) == []


def test_the_file_is_geoparquet(tmp_path: Path) -> None:
    doubts, _ = make_doubts()
    doubts.write(str(tmp_path / "a.parquet"))
    geo = json.loads(pq.read_schema(tmp_path / "a.parquet").metadata[b"geo"])
    assert geo["primary_column"] == "footprint"
    assert CRS.from_json_dict(geo["columns"]["footprint"]["crs"]) == CRS_M


def test_cells_count_the_points_below_each_level(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    config = BlockConfig(tile_size_m=16, halo_m=1, voxel_size_m=0.5)
    xyz = rng.uniform((-16, 0, 0), (16, 16, 5), (3000, 3))
    voxel, counts = np.floor(xyz / 0.5).astype(np.int64), rng.integers(1, 4, len(xyz))
    labels = {
        "classes": rng.integers(0, 3, len(xyz)).astype(np.uint8),
        "confidence": np.where(xyz[:, 0] < 4, rng.uniform(0.3, 1, len(xyz)), 0.95).astype(np.float32),
    }
    doubts = TileDoubts("a.laz", config, CRS_M, np.array([[-16, 0, 0], [16, 16, 5.0]]), 3)
    doubts.add(xyz, voxel, counts, labels)
    doubts.write(uri := str(tmp_path / "a.parquet"))
    tiles = read_tiles(uri)
    assert float(tiles.schema.metadata[b"tile_size"]) == 16
    west, east = tiles.to_pylist()
    assert tiles.schema.metadata[b"cells"] == b"8"
    assert len(west["cell"]) == 8**2
    assert set(east["cell"]) == {8 * i + j for i in (0, 1) for j in range(8)}, "2 m wide, below 4 m"
    for tile, corner in ((west, -16), (east, 0)):
        below = np.array(tile["cell_below"]).reshape(-1, len(LEVELS))
        for n, cell in enumerate(tile["cell"]):
            i, j = divmod(cell, 8)
            here = (np.floor((xyz[:, 0] - corner) / 2) == i) & (np.floor(xyz[:, 1] / 2) == j)
            sure = labels["confidence"][here]
            assert tile["cell_points"][n] == counts[here].sum()
            assert below[n].tolist() == [counts[here][sure < level].sum() for level in LEVELS]
            assert tile["cell_confidence"][n] == pytest.approx(
                np.average(sure, weights=counts[here]), rel=1e-5
            )
            of_class = np.bincount(labels["classes"][here], counts[here] * (sure < 0.9), 3)
            assert tile["cell_class"][n] == of_class.argmax()


@pytest.mark.parametrize(("tile_m", "crs", "cells"), [(64, CRS_M, 32), (4, CRS_M, 8), (1000, CRS_M, 128)])
def test_cells_are_two_metres_wide_whatever_the_tile(
    tmp_path: Path, tile_m: float, crs: CRS, cells: int
) -> None:
    config = BlockConfig(tile_size_m=tile_m, halo_m=1, voxel_size_m=0.5)
    doubts = TileDoubts("a.laz", config, crs, np.array([[0, 0, 0], [tile_m, tile_m, 5.0]]), 3)
    # Forty points close together in the corner, and as many sure ones everywhere.
    rng = np.random.default_rng(0)
    xyz = np.concatenate(
        [rng.uniform(0, (0.4, 0.4, 5), (40, 3)), rng.uniform(0, (tile_m, tile_m, 5), (40, 3))]
    )
    labels = {
        "classes": np.zeros(80, np.uint8),
        "confidence": np.repeat([0.5, 0.99], 40).astype(np.float32),
    }
    doubts.add(xyz, np.floor(xyz / 0.5).astype(np.int64), np.ones(80, np.int64), labels)
    doubts.write(uri := str(tmp_path / "a.parquet"))
    (tile,) = read_tiles(uri).to_pylist()
    assert read_tiles(uri).schema.metadata[b"cells"] == str(cells).encode()
    assert tile["cell"] == [0]
    assert tile["cell_below"][5] == 40
