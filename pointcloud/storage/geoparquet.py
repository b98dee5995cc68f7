"""Polygons in Parquet that QGIS, GDAL, DuckDB and geopandas open as a map: GeoParquet 1.1, WKB."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from pyproj import CRS


def metadata(column: str, crs: CRS | None) -> dict[str, str]:
    """What the schema of a table says of its one column of polygons (geoparquet.org, 1.1.0)."""
    geometry: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"]}
    # GeoParquet reads a missing CRS as longitude and latitude; null says that it is not known.
    geometry["crs"] = crs.to_json_dict() if crs is not None else None
    geo = {"version": "1.1.0", "primary_column": column, "columns": {column: geometry}}
    return {"geo": json.dumps(geo, sort_keys=True)}


def bounds(rectangles: Sequence[bytes]) -> np.ndarray:
    """x_min, y_min, x_max, y_max (n, 4) float64 of polygons that `rectangle` has made."""
    corners = [struct.unpack_from("<10d", wkb, struct.calcsize("<BIII")) for wkb in rectangles]
    return np.array(corners).reshape(-1, 10)[:, [0, 1, 4, 5]]


def rectangle(box: Sequence[float]) -> bytes:
    """x_min, y_min, x_max, y_max as a WKB polygon."""
    x0, y0, x1, y1 = box
    return struct.pack("<BIII10d", 1, 3, 1, 5, x0, y0, x1, y0, x1, y1, x0, y1, x0, y0)
