"""The places that the user should look at, as polygons that a GIS opens.

They are tiles with a low mean confidence, clusters of doubtful points, and whole scans that were not labelled or are
unlike the training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyproj import CRS

from pointcloud.crs import name_of
from pointcloud.quality.doubtful_tiles import LEAST_CELLS, LEAST_POINTS, LEVELS
from pointcloud.storage import files, geopackage, geoparquet

NAME = "review"
MOST_CLUSTERS = 100
"""Of one scan: somebody has to look at them."""
_OF_TILE = ("scan", "i", "j", "z", "footprint")
_OF_CELLS = ("cell", "cell_points", "cell_below", "cell_confidence", "cell_class")
_FURTHER = re.compile(r"review-(\d+)\.parquet")
_SCHEMA = pa.schema(
    [
        ("scan", pa.string()),
        ("reason", pa.string()),
        ("i", pa.int64()),
        ("j", pa.int64()),
        ("num_points", pa.int64()),
        ("confidence", pa.float32()),
        ("unlikeness", pa.float32()),
        ("doubtful_points", pa.int64()),
        ("area_m2", pa.float64()),
        ("class", pa.string()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("z", pa.float64()),
        ("footprint", pa.binary()),
    ]
)


def doubtful(tiles: pa.Table, below: float) -> pa.Table:
    """The rows of `doubtful_tiles.read_tiles` with a mean confidence below a limit, as rows to review."""
    chosen = tiles.filter(pc.less(tiles["confidence"], below))
    reason = [f"mean confidence {sure:.2f}" for sure in chosen["confidence"].to_pylist()]
    columns: dict[str, Any] = {name: chosen[name] for name in _SCHEMA.names if name in chosen.column_names}
    return _table({**columns, "reason": reason}, len(chosen), tiles)


def unlike(tiles: pa.Table, below: float) -> pa.Table:
    """The tiles that are unlike what the network was trained on, but for those that `doubtful` returns.

    Of a file that was written before that was known, none.
    """
    if "unlikeness" not in tiles.column_names:
        return _table({}, 0, tiles)
    sure = pc.greater_equal(tiles["confidence"], below)
    enough = pc.greater_equal(tiles["num_points"], LEAST_POINTS)
    chosen = tiles.filter(pc.and_(pc.and_(sure, enough), pc.greater(tiles["unlikeness"], 1)))
    reason = [
        f"unlike what the network was trained on, {far:.1f} times as far from it as the limit; its confidence of "
        f"{confidence:.2f} says little"
        for far, confidence in zip(
            chosen["unlikeness"].to_pylist(), chosen["confidence"].to_pylist(), strict=True
        )
    ]
    columns: dict[str, Any] = {name: chosen[name] for name in _SCHEMA.names if name in chosen.column_names}
    return _table({**columns, "reason": reason}, len(chosen), tiles)


def clusters(tiles: pa.Table, below: float, class_names: Sequence[str]) -> pa.Table:
    """Places where doubtful points lie close together, also in tiles whose mean confidence is high.

    A cell of a tile is doubtful where half of its points have a confidence below the limit. Doubtful cells of a tile
    that touch, at a side or a corner, are one cluster; one with at least `LEAST_POINTS` doubtful points becomes a
    rectangle around its cells. Tiles that `doubtful` returns as a whole are left out. Of each scan the `MOST_CLUSTERS`
    with most doubtful points are returned, most first.

    Args:
        tiles: of one scan, as `doubtful_tiles.read_tiles` returns them.
        below: the limit, which is rounded down to a tenth.
        class_names: of the checkpoint.
    """
    level = min(int(below * 10 + 1e-9), len(LEVELS)) - 1
    rows: list[dict[str, Any]] = []
    if level >= 0 and "cell" in tiles.column_names:
        metadata = tiles.schema.metadata
        num_cells = int(metadata.get(b"cells", LEAST_CELLS))
        size, metres = float(metadata[b"tile_size"]) / num_cells, float(metadata[b"metres_per_unit"])
        sure = tiles.filter(pc.greater_equal(tiles["confidence"], below))
        for tile in sure.select([*_OF_TILE, *_OF_CELLS]).to_pylist():
            rows += _clusters_of_tile(tile, level, num_cells, size, metres, class_names)
    rows = sorted(rows, key=lambda row: (-row["doubtful_points"], row["i"], row["j"]))[:MOST_CLUSTERS]
    return _table({name: [row.get(name) for row in rows] for name in _SCHEMA.names}, len(rows), tiles)


def _clusters_of_tile(
    tile: Mapping[str, Any],
    level: int,
    num_cells: int,
    size: float,
    metres: float,
    class_names: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """The clusters of one tile, with `num_cells` along its edge; `size` is the edge of a cell in CRS units."""
    points = np.array(tile["cell_points"], np.int64)
    below = np.array(tile["cell_below"], np.int64).reshape(len(points), len(LEVELS))[:, level]
    doubtful = np.flatnonzero((below > 0) & (2 * below >= points))
    cells = np.array(tile["cell"], np.int64)
    confidence = np.array(tile["cell_confidence"], np.float64)
    classes = np.array(tile["cell_class"], np.int64)
    clipped = geoparquet.bounds([tile["footprint"]])[0]
    for cluster in _touching(cells[doubtful], num_cells):
        chosen = doubtful[cluster]
        num_doubtful = int(below[chosen].sum())
        if num_doubtful < LEAST_POINTS:
            continue
        place = np.array([tile["i"], tile["j"]]) * num_cells + np.stack(
            divmod(cells[chosen], num_cells), axis=1
        )
        low, high = place.min(axis=0) * size, (place.max(axis=0) + 1) * size
        box = *np.maximum(low, clipped[:2]).tolist(), *np.minimum(high, clipped[2:]).tolist()
        label = int(np.bincount(classes[chosen], below[chosen]).argmax())
        mean = float(np.average(confidence[chosen], weights=points[chosen]))
        yield {
            "scan": tile["scan"], "i": tile["i"], "j": tile["j"],
            "reason": f"{num_doubtful:,} doubtful points close together, most of them {class_names[label]}",
            "num_points": int(points[chosen].sum()),
            "confidence": mean,
            "doubtful_points": num_doubtful,
            "area_m2": len(chosen) * (size * metres) ** 2,
            "class": class_names[label],
            "x": (box[0] + box[2]) / 2, "y": (box[1] + box[3]) / 2, "z": tile["z"],
            "footprint": geoparquet.rectangle(box),
        }  # fmt: skip


def _touching(cells: np.ndarray, num_cells: int) -> Iterator[list[int]]:
    """Cells (n,), `num_cells` · row + column, in groups that touch at a side or a corner; positions in `cells`."""
    left = {int(cell): position for position, cell in enumerate(cells)}
    while left:
        cell, position = left.popitem()
        pending, group = [cell], [position]
        while pending:
            row, column = divmod(pending.pop(), num_cells)
            for i, j in product((row - 1, row, row + 1), (column - 1, column, column + 1)):
                other = i * num_cells + j
                if 0 <= j < num_cells and other in left:
                    group.append(left.pop(other))
                    pending.append(other)
        yield sorted(group)


def _table(columns: Mapping[str, Any], num_rows: int, tiles: pa.Table) -> pa.Table:
    """Rows to review in the CRS of some tiles; a column that is not given is null."""
    arrays = [columns.get(name, [None] * num_rows) for name in _SCHEMA.names]
    arrays = [
        values.combine_chunks() if isinstance(values, pa.ChunkedArray) else pa.array(values, kind)
        for values, kind in zip(arrays, _SCHEMA.types, strict=True)
    ]
    schema = _SCHEMA.with_metadata({b"geo": tiles.schema.metadata[b"geo"]})
    return pa.Table.from_arrays(arrays, schema=schema)


def whole_scan(scan: str, reason: str, box: Sequence[float], crs: CRS | None) -> pa.Table:
    """One row to review: all of a scan, whose header tells where it lies."""
    row = {"scan": scan, "reason": reason, "footprint": geoparquet.rectangle(box)}
    return pa.Table.from_pylist([row], _SCHEMA.with_metadata(geoparquet.metadata("footprint", crs)))


def write(folder: str, tables: Sequence[pa.Table]) -> list[str]:
    """Write rows to review as GeoPackage, and as GeoParquet, one file for each CRS; the files' URIs, in this order.

    The CRS with most rows comes first, in the GeoPackage as a layer. A review without rows is written too: it says that
    there is nothing to look at. Files of an earlier review that had more CRSs are removed.

    Raises:
        StorageError: the folder cannot be listed or written.
    """
    layers = []
    for number, table in enumerate(_by_crs(tables), 1):
        layers.append((NAME if number == 1 else f"{NAME}-{number}", table))
    uris = [files.join(folder, f"{NAME}.gpkg")]
    geopackage.write(uris[0], layers)
    for name, table in layers:
        uris.append(files.join(folder, f"{name}.parquet"))
        with files.staged(uris[-1]) as local_path:
            pq.write_table(table, local_path, compression="zstd")
    for file in files.list_files(folder, recursive=False):
        further = _FURTHER.fullmatch(file.name)
        if further and int(further[1]) > len(layers):
            files.delete(file.uri)
    return uris


def _by_crs(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Rows with one CRS as one table, an empty one where there are none.

    What is unlike the training comes first, then the most doubtful.
    """
    by_crs: dict[bytes, list[pa.Table]] = {}
    for table in tables:
        by_crs.setdefault(table.schema.metadata[b"geo"], []).append(table)
    if not by_crs:
        return [_SCHEMA.with_metadata(geoparquet.metadata("footprint", None)).empty_table()]
    most_first = sorted(by_crs, key=lambda geo: (-sum(map(len, by_crs[geo])), geo))
    wholes = (pa.concat_tables(by_crs[geo]) for geo in most_first)
    order = [("is_unlike", "descending"), ("confidence", "ascending"), ("scan", "ascending")]
    sorted_rows = []
    for whole in wholes:
        is_unlike = pc.fill_null(pc.greater(whole["unlikeness"], 1), False)
        ranked = whole.append_column("is_unlike", pc.cast(is_unlike, pa.int8()))
        sorted_rows.append(ranked.sort_by(order).drop_columns(["is_unlike"]))
    return sorted_rows


def crs_name(tiles: pa.Table) -> str:
    """A readable name of the CRS of a table of polygons."""
    geo: Mapping[str, Any] = json.loads(tiles.schema.metadata[b"geo"])
    crs = geo["columns"]["footprint"]["crs"]
    # A CRS bound to another by a shift (TOWGS84) has no name of its own in PROJJSON.
    return name_of(CRS.from_json_dict(crs)) if crs else "no CRS in the scan"
