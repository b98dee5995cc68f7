"""How sure labelling was, tile by tile, and what the most doubtful tiles look like: one small file per scan.

A tile is divided into square cells, 2 m wide in tiles of 16 m and more. Where a tile as a whole is sure, its cells
still tell where doubtful points lie close together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyproj import CRS

from pointcloud.blocks.block import Block
from pointcloud.crs import metres_per_unit
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.grid import Grid
from pointcloud.storage import files, geoparquet

NUM_WORST_TILES = 3
"""So many tiles of a scan, those with the lowest mean confidence, are kept with their points, to be drawn."""
LEAST_POINTS = 30
"""A tile, or a cluster of doubtful points, with fewer is no place to send somebody to."""
LEAST_CELLS, _MOST_CELLS = 8, 128
"""Cells along the edge of a tile."""
_CELL_M = 2.0
"""Cells along a tile."""
LEVELS = np.arange(1, 10) / 10
"""Confidences below which the points of a cell are counted."""

_PLACE = {
    "x": pa.float64(),
    "y": pa.float64(),
    "z": pa.float64(),
    "class": pa.int16(),
    "confidence": pa.float32(),
}
_SCHEMA = pa.schema(
    [
        pa.field("scan", pa.string()),
        pa.field("i", pa.int64()),
        pa.field("j", pa.int64()),
        pa.field(
            "num_points", pa.int64(), metadata={"doc": "points that got a label, thinned-away ones too"}
        ),
        pa.field("confidence", pa.float32(), metadata={"doc": "mean over its points, of their voxels"}),
        pa.field(
            "class_points",
            pa.list_(pa.int64()),
            metadata={"doc": "by class of their voxels, of the checkpoint"},
        ),
        *(
            pa.field(axis, pa.float64(), metadata={"doc": "mean over its points, CRS units"})
            for axis in "xyz"
        ),
        pa.field(
            "unlikeness",
            pa.float32(),
            metadata={
                "doc": "of its points, how far they are from what the network learnt, as a share of the limit; "
                "null where the checkpoint has none"
            },
        ),
        pa.field("footprint", pa.binary()),
        # The cells that hold points below the highest level; of n cells.
        pa.field("cell", pa.list_(pa.int16()), metadata={"doc": "cells along the edge · row + column, (n,)"}),
        pa.field("cell_points", pa.list_(pa.int64()), metadata={"doc": "all points of each, (n,)"}),
        pa.field(
            "cell_below", pa.list_(pa.int64()), metadata={"doc": "points below each of LEVELS, (n · 9,)"}
        ),
        pa.field("cell_confidence", pa.list_(pa.float32()), metadata={"doc": "mean of all points, (n,)"}),
        pa.field(
            "cell_class",
            pa.list_(pa.int16()),
            metadata={"doc": "most frequent class below the highest level, (n,)"},
        ),
        # The thinned points of the most doubtful tiles; null elsewhere.
        *(pa.field(f"place_{name}", pa.list_(kind)) for name, kind in _PLACE.items()),
    ]
)


@dataclass(frozen=True)
class WorstTile:
    """The thinned points of one of a scan's most doubtful tiles, n of them.

    Attributes:
        scan: its name.
        tile: (i, j) on the grid of the CRS.
        confidence: mean over its points, in [0, 1].
        xyz: (n, 3) float64, CRS units; classes: (n,) int16; confidences: (n,) float32.
    """

    scan: str
    tile: tuple[int, int]
    confidence: float
    xyz: np.ndarray
    classes: np.ndarray
    confidences: np.ndarray


class TileDoubts:
    """Adds up the labels of a scan by tile, region by region; a tile lies in one region, so only its row is kept.

    Args:
        extent: (2, 3) smallest and largest coordinates of the scan: tiles end there, so that no ground counts twice.
        num_classes: of the checkpoint.
        limit: the mean distance of a tile from which it is unlike the training; None where it is not known.

    Attributes:
        area_km2: of the tiles that have points.
    """

    def __init__(
        self, scan: str, config: BlockConfig, crs: CRS | None, extent: np.ndarray, num_classes: int,
        limit: float | None = None,
    ) -> None:  # fmt: skip
        self._scan, self._crs, self._num_classes = scan, crs, num_classes
        self._limit = limit
        self._distances: dict[tuple[int, int], tuple[float, int]] = {}
        self._low, self._high = extent[:, :2]
        self._metres = metres_per_unit(crs)[0]
        self.area_km2 = 0.0
        self._voxels_per_tile = config.voxels_per_tile
        self._tile_size = config.voxels_per_tile * Grid.of(config, crs).voxel_size[0]
        along_edge = round(self._tile_size * self._metres / _CELL_M)
        self._num_cells = min(max(along_edge, LEAST_CELLS), _MOST_CELLS)
        self._rows: list[dict[str, Any]] = []
        self._places: list[tuple[float, int, dict[str, np.ndarray]]] = []

    def add_distances(self, block: Block, distances: np.ndarray) -> None:
        """Add how far the points of a block are from what the network learnt, (N,); before `add` of its region.

        Blocks of the shifted grids lie across tiles and do not count.
        """
        if block.shift == (0, 0):
            total, number = self._distances.get(block.tile, (0.0, 0))
            of_core = distances[block.is_core]
            self._distances[block.tile] = total + float(of_core.sum()), number + len(of_core)

    def _unlikeness(self, tile: tuple[int, int]) -> float | None:
        total, number = self._distances.pop(tile, (0.0, 0))
        return total / number / self._limit if number and self._limit else None

    @property
    def share_unlike(self) -> float:
        """Of the tiles with enough points, those that are unlike the training; 0 where that is not known."""
        rows = [row for row in self._rows if row["num_points"] >= LEAST_POINTS]
        return sum((row["unlikeness"] or 0) > 1 for row in rows) / max(len(rows), 1)

    def add(
        self, xyz: np.ndarray, voxel: np.ndarray, num_points: np.ndarray, labels: dict[str, np.ndarray]
    ) -> None:
        """Add the labelled voxels of a region.

        Args:
            xyz: (V, 3) float64, CRS units; voxel: (V, 3) int64; num_points: (V,) points each stands for.
            labels: "classes" (V,) and "confidence" (V,), as `measures.summarise` gives them.
        """
        tile = voxel[:, :2] // self._voxels_per_tile
        low = tile.min(axis=0)
        span = np.ptp(tile, axis=0) + 1
        key = (tile[:, 0] - low[0]) * span[1] + tile[:, 1] - low[1]
        order = np.argsort(key, kind="stable")
        starts = np.flatnonzero(np.diff(key[order], prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
            self._add_tile(xyz, voxel, num_points, labels, order[start:end])

    def _add_tile(
        self, xyz: np.ndarray, voxel: np.ndarray, num_points: np.ndarray, labels: dict[str, np.ndarray],
        rows: np.ndarray,
    ) -> None:  # fmt: skip
        weight, classes, sure = num_points[rows], labels["classes"][rows], labels["confidence"][rows]
        (i, j), total = (voxel[rows[0], :2] // self._voxels_per_tile).tolist(), int(weight.sum())
        confidence = float(np.average(sure, weights=weight))
        x, y, z = np.average(xyz[rows], axis=0, weights=weight).tolist()
        corner = np.array([i, j]) * self._tile_size
        low, high = np.maximum(corner, self._low), np.minimum(corner + self._tile_size, self._high)
        self.area_km2 += float(np.prod((high - low) * self._metres)) / 1e6
        self._rows.append(
            {
                "scan": self._scan, "i": i, "j": j, "num_points": total, "confidence": confidence,
                "class_points": np.bincount(classes, weight, self._num_classes).astype(np.int64),
                "x": x, "y": y, "z": z,
                "unlikeness": self._unlikeness((i, j)),
                "footprint": geoparquet.rectangle((*low.tolist(), *high.tolist())),
                **self._cells(voxel[rows, :2] - np.array([i, j]) * self._voxels_per_tile, weight, classes, sure),
            }
        )  # fmt: skip
        if total < LEAST_POINTS:
            return
        candidate = (confidence, len(self._rows) - 1)
        if len(self._places) < NUM_WORST_TILES or candidate < self._places[-1][:2]:
            seen = {
                "x": xyz[rows, 0],
                "y": xyz[rows, 1],
                "z": xyz[rows, 2],
                "class": classes,
                "confidence": sure,
            }
            self._places.append((*candidate, seen))
            self._places.sort(key=lambda place: place[:2])
            del self._places[NUM_WORST_TILES:]

    def _cells(
        self, place: np.ndarray, weight: np.ndarray, classes: np.ndarray, sure: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The columns on the cells of one tile, from its voxels: place in it (V, 2), points, class, confidence."""
        row, column = (place * self._num_cells // self._voxels_per_tile).T
        cell, num_cells = row * self._num_cells + column, self._num_cells**2
        level = np.searchsorted(LEVELS, sure, side="right")
        by_level = np.bincount(cell * 10 + level, weight, num_cells * 10).reshape(num_cells, 10)
        below = by_level.cumsum(axis=1)[:, :-1].astype(np.int64)
        points = by_level.sum(axis=1)
        doubtful = weight * (level < len(LEVELS))
        by_class = np.bincount(cell * self._num_classes + classes, doubtful, num_cells * self._num_classes)
        kept = np.flatnonzero(below[:, -1])
        confidence = np.bincount(cell, weight * sure, num_cells)[kept] / points[kept]
        return {
            "cell": kept.astype(np.int16),
            "cell_points": points[kept].astype(np.int64),
            "cell_below": below[kept].ravel(),
            "cell_confidence": confidence.astype(np.float32),
            "cell_class": by_class.reshape(num_cells, -1).argmax(axis=1)[kept].astype(np.int16),
        }

    @property
    def confidence(self) -> float:
        """Mean over all points."""
        weights = [row["num_points"] for row in self._rows]
        return float(np.average([row["confidence"] for row in self._rows], weights=weights))

    def write(self, uri: str) -> None:
        """One row per tile as GeoParquet. Raises StorageError."""
        for _, row, seen in self._places:
            self._rows[row] |= {f"place_{name}": seen[name] for name in _PLACE}
        metadata = geoparquet.metadata("footprint", self._crs)
        metadata["tile_size"], metadata["metres_per_unit"] = repr(self._tile_size), repr(self._metres)
        metadata["cells"] = repr(self._num_cells)
        schema = _SCHEMA.with_metadata(metadata)
        with files.staged(uri) as local_path:
            pq.write_table(pa.Table.from_pylist(self._rows, schema), local_path, compression="zstd")


def read_tiles(uri: str) -> pa.Table:
    """A scan's tiles, without the points of the doubtful ones.

    The schema's metadata says the CRS, the edge of a tile in CRS units, the metres in such a unit, and how many cells
    lie along the edge of a tile (8 where it does not say).

    Raises:
        StorageError: nothing there.
    """
    with files.open_input(uri) as stream:
        file = pq.ParquetFile(stream)
        # A file that was written before there were cells has none.
        names = [name for name in file.schema_arrow.names if not name.startswith("place_")]
        return file.read(columns=names)


def read_worst_tiles(uri: str) -> list[WorstTile]:
    """The most doubtful tiles of a scan, the worst first."""
    names = ["scan", "i", "j", "confidence", *(f"place_{name}" for name in _PLACE)]
    with files.open_input(uri) as stream:
        table = pq.read_table(stream, columns=names)
    rows = table.filter(table["place_class"].is_valid()).to_pylist()
    return [
        WorstTile(
            scan=row["scan"],
            tile=(row["i"], row["j"]),
            confidence=row["confidence"],
            xyz=np.array([row[f"place_{axis}"] for axis in "xyz"]).T,
            classes=np.array(row["place_class"], np.int16),
            confidences=np.array(row["place_confidence"], np.float32),
        )
        for row in sorted(rows, key=lambda row: (row["confidence"], row["i"], row["j"]))
    ]
