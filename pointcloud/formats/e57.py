"""Reading E57 (ASTM E2807) through pye57, which the extra `e57` installs.

A file may hold several scans, each from its own place: their poses are applied, so that all coordinates are in the
file's one system. Points that the scanner marked as invalid are left out.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from pyproj import CRS
from pyproj.exceptions import CRSError

from pointcloud.cloud import CHUNK_POINTS, Columns, ScanHeader
from pointcloud.errors import ScanError, one_line
from pointcloud.formats import columns
from pointcloud.formats.decoding import reading
from pointcloud.storage import files

SUFFIXES = (".e57",)
_EXPECTED = "a complete E57 file with points"
_CARTESIAN = ("cartesianX", "cartesianY", "cartesianZ")
_SPHERICAL = ("sphericalRange", "sphericalAzimuth", "sphericalElevation")
_ATTRIBUTES = {"intensity": "intensity", "red": "colorRed", "green": "colorGreen", "blue": "colorBlue"}
_ATTRIBUTES |= {"return_number": "returnIndex", "number_of_returns": "returnCount"}


def read_header(uri: str) -> ScanHeader:
    """What an E57 file says of its scans. No bounds: some writers give them before the pose, some after.

    Raises:
        ScanError: unreadable, or pye57 is not installed.
    """
    with _open(uri) as file:
        scans = [file.get_header(index) for index in range(file.scan_count)]
        fields = sorted({field for scan in scans for field in scan.point_fields})
        crs, crs_notes = _crs(file)
        return ScanHeader(
            uri=uri,
            format="E57",
            num_points=sum(scan.point_count for scan in scans),
            bounds=None,
            crs=crs,
            attributes=columns.attributes_of(_shared(scans)),
            resolution=None,
            dimensions=tuple(fields),
            notes=(f"it holds {len(scans)} scans, joined by their poses.",) if len(scans) > 1 else (),
            crs_notes=tuple(crs_notes),
        )


def iterate_columns(header: ScanHeader, report: Callable[[str], None]) -> Iterator[Columns]:
    """The points of all scans, one scan after the other. Raises ScanError for damaged data."""
    with _open(header.uri) as file:
        scans = [file.get_header(index) for index in range(file.scan_count)]
        invalid = [0]

        def tables() -> Iterator[columns.Table]:
            invalid[0] = 0
            for scan in scans:
                for table, num_invalid in _read(file, scan, _shared(scans)):
                    invalid[0] += num_invalid
                    yield table

        types = {name: np.dtype(np.float64) for name in columns.AXES}
        types |= {name: _type_of(scans, field) for name, field in _shared(scans).items()}
        yield from columns.iterate_columns(tables, types, report)
        if invalid[0]:
            report(f"{invalid[0]} points that the scanner marked as invalid are left out.")


@contextmanager
def _open(uri: str) -> Iterator[Any]:
    try:
        import pye57
    except ImportError as error:
        raise ScanError(
            f"cannot read scan {uri!r}: E57 needs pye57, which is not installed; run pip install 'pointloom[e57]'."
        ) from error
    # libE57 reads from a path only.
    with tempfile.NamedTemporaryFile(suffix=".e57") as copy:
        path = files.resolve(uri)[1]
        with files.open_input(uri) as stream:
            if not files.is_local(uri):
                shutil.copyfileobj(stream, copy)
                copy.flush()
                path = copy.name
        with reading(uri, _EXPECTED), pye57.E57(path) as file:
            yield file


def _crs(file: Any) -> tuple[CRS | None, list[str]]:
    text = file.root["coordinateMetadata"].value() if file.root.isDefined("coordinateMetadata") else ""
    if not text.strip():
        return None, ["no CRS in the file; metres are assumed."]
    try:
        return CRS(text), []
    except CRSError as error:
        reason = one_line(error)
        return None, [f"its CRS cannot be understood ({reason}); metres are assumed."]


def _shared(scans: list[Any]) -> dict[str, str]:
    """The attributes that every scan of the file has: attribute -> E57's name."""
    there = set.intersection(*[set(scan.point_fields) for scan in scans] or [set()])
    colours = all(_ATTRIBUTES[name] in there for name in columns.COLOURS)
    return {
        n: field
        for n, field in _ATTRIBUTES.items()
        if field in there and (colours or n not in columns.COLOURS)
    }


def _type_of(scans: list[Any], field: str) -> np.dtype:
    """16 bits for whole numbers, which colours and counts usually are; intensity and anything scaled as floats."""
    from pye57 import libe57

    nodes = [libe57.StructureNode(scan.points.prototype())[field] for scan in scans]
    whole = all(
        isinstance(n, libe57.IntegerNode) and n.minimum() >= 0 and n.maximum() <= 65535 for n in nodes
    )
    return np.dtype(np.uint16 if whole else np.float64)


def _read(file: Any, scan: Any, attributes: dict[str, str]) -> Iterator[tuple[columns.Table, int]]:
    """The points of one scan in the file's coordinates, chunk after chunk, and how many of each were invalid."""
    from pye57 import libe57

    position = next(
        (names for names in (_CARTESIAN, _SPHERICAL) if set(names) <= set(scan.point_fields)), None
    )
    if position is None:
        raise ScanError(
            "its points have neither Cartesian nor spherical coordinates; export it again with x, y, z."
        )
    state = "cartesianInvalidState" if position is _CARTESIAN else "sphericalInvalidState"
    types: dict[str, np.dtype] = dict.fromkeys(position, np.dtype(np.float64))
    types |= {field: _type_of([scan], field) for field in attributes.values()}
    if state in scan.point_fields:
        types[state] = np.dtype(np.int8)
    capacity = max(1, min(CHUNK_POINTS, scan.point_count))
    arrays = {field: np.empty(capacity, kind) for field, kind in types.items()}
    buffers = libe57.VectorSourceDestBuffer()
    for field, array in arrays.items():
        buffers.append(libe57.SourceDestBuffer(file.image_file, field, array, capacity, True, True))
    rotation, translation = scan.rotation_matrix, scan.translation
    points = scan.points.reader(buffers)
    while count := points.read():
        valid = arrays[state][:count] == 0 if state in arrays else np.ones(count, bool)
        own = np.stack([arrays[field][:count][valid] for field in position])
        if position is _SPHERICAL:
            own = _to_cartesian(*own)
        xyz = rotation @ own + translation[:, None]
        table = dict(zip(columns.AXES, xyz, strict=True))
        table |= {name: arrays[field][:count][valid] for name, field in attributes.items()}
        if "return_number" in table:
            table["return_number"] = table["return_number"] + 1  # E57 counts them from 0
        yield table, count - int(valid.sum())


def _to_cartesian(radius: np.ndarray, azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """(3, n) from spherical coordinates as E57 defines them: elevation counts from the xy plane."""
    flat = radius * np.cos(elevation)
    return np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), radius * np.sin(elevation)])
