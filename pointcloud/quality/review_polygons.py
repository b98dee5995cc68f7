"""The places that a person should look at, as polygons that a GIS opens: doubtful tiles, quarantined scans."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyproj import CRS

from pointcloud.crs import name_of
from pointcloud.storage import files, geopackage, geoparquet

NAME = "review"
_FURTHER = re.compile(r"review-(\d+)\.parquet")
_SCHEMA = pa.schema(
    [
        ("scan", pa.string()),
        ("reason", pa.string()),
        ("i", pa.int64()),
        ("j", pa.int64()),
        ("num_points", pa.int64()),
        ("confidence", pa.float32()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("z", pa.float64()),
        ("footprint", pa.binary()),
    ]
)


def doubtful(tiles: pa.Table, below: float) -> pa.Table:
    """The rows of `doubt.read_tiles` with a mean confidence below a limit, as rows to review."""
    found = tiles.filter(pc.less(tiles["confidence"], below))
    reason = pa.array(
        [f"mean confidence {sure:.2f}" for sure in found["confidence"].to_pylist()], pa.string()
    )
    columns = [reason if name == "reason" else found[name] for name in _SCHEMA.names]
    return pa.Table.from_arrays(columns, schema=_SCHEMA.with_metadata(tiles.schema.metadata))


def whole_scan(scan: str, reason: str, box: Sequence[float], crs: CRS | None) -> pa.Table:
    """One row to review: all of a scan, whose header tells where it lies."""
    row = {"scan": scan, "reason": reason, "footprint": geoparquet.rectangle(box)}
    return pa.Table.from_pylist([row], _SCHEMA.with_metadata(geoparquet.metadata("footprint", crs)))


def write(folder: str, found: Sequence[pa.Table]) -> list[str]:
    """Write rows to review as GeoPackage, and as GeoParquet, one file for each CRS; the files' URIs, in this order.

    The CRS with most rows comes first, in the GeoPackage as a layer. A review without rows is written too: it says that
    there is nothing to look at. Files of an earlier review that had more CRSs are removed.

    Raises:
        StorageError: the folder cannot be listed or written.
    """
    layers = []
    for number, table in enumerate(_by_crs(found), 1):
        layers.append((NAME if number == 1 else f"{NAME}-{number}", table))
    uris = [files.join(folder, f"{NAME}.gpkg")]
    geopackage.write(uris[0], layers)
    for name, table in layers:
        uris.append(files.join(folder, f"{name}.parquet"))
        with files.staged(uris[-1]) as part:
            pq.write_table(table, part, compression="zstd")
    for file in files.list_files(folder, recursive=False):
        further = _FURTHER.fullmatch(file.name)
        if further and int(further[1]) > len(layers):
            files.delete(file.uri)
    return uris


def _by_crs(found: Sequence[pa.Table]) -> list[pa.Table]:
    """Rows with one CRS as one table, the most doubtful first; an empty table where there are none."""
    by_crs: dict[bytes, list[pa.Table]] = {}
    for table in found:
        by_crs.setdefault(table.schema.metadata[b"geo"], []).append(table)
    if not by_crs:
        return [_SCHEMA.with_metadata(geoparquet.metadata("footprint", None)).empty_table()]
    most_first = sorted(by_crs, key=lambda geo: (-sum(map(len, by_crs[geo])), geo))
    wholes = (pa.concat_tables(by_crs[geo]) for geo in most_first)
    return [whole.sort_by([("confidence", "ascending"), ("scan", "ascending")]) for whole in wholes]


def crs_name(tiles: pa.Table) -> str:
    """What a person calls the CRS of a table of polygons."""
    geo: Mapping[str, Any] = json.loads(tiles.schema.metadata[b"geo"])
    crs = geo["columns"]["footprint"]["crs"]
    # A CRS bound to another by a shift (TOWGS84) has no name of its own in PROJJSON.
    return name_of(CRS.from_json_dict(crs)) if crs else "no CRS in the scan"
