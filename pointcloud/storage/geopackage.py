"""Polygons as a GeoPackage, which every QGIS and GDAL opens: one layer for each CRS, written by GDAL itself."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyproj import CRS

from pointcloud.storage import files


def write(uri: str, layers: Sequence[tuple[str, pa.Table]]) -> None:
    """Write tables of polygons as the layers of one GeoPackage; what was there is replaced.

    Args:
        uri: where it goes.
        layers: name -> a table with the metadata of `geoparquet.metadata`, one column of WKB.

    Raises:
        StorageError: it cannot be written.
    """
    import pyogrio  # brings GDAL, which takes a moment

    with tempfile.TemporaryDirectory(prefix="pointloom-geopackage-") as folder:
        # GDAL needs the suffix, and SQLite a file on a local disk.
        path = Path(folder) / "polygons.gpkg"
        for name, table in layers:
            geo = json.loads(table.schema.metadata[b"geo"])
            column = geo["primary_column"]
            crs = geo["columns"][column]["crs"]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="'crs' was not provided")  # as in the scan
                pyogrio.write_arrow(
                    table, str(path), layer=name, driver="GPKG", geometry_name=column, geometry_type="Polygon",
                    crs=CRS.from_json_dict(crs).to_wkt() if crs else None, append=path.exists(),
                )  # fmt: skip
        files.write_bytes(uri, path.read_bytes())
