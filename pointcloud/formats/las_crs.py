"""The CRS of a LAS file: from its WKT, from its GeoTIFF keys, or from both."""

from __future__ import annotations

import re

import laspy
import numpy as np
from pyproj import CRS
from pyproj.exceptions import CRSError

from pointcloud.crs import (
    add_heights,
    contradictory_units,
    counts_in_degrees,
    is_local,
    is_same_ground,
    metres_per_unit,
    name_of,
    vertical_part,
)
from pointcloud.errors import ScanError, one_line
from pointcloud.formats.geotiff_keys import DIRECTORY, DOUBLES, TEXTS, crs_of_keys, parse_keys

_VERTICAL_WKT = re.compile(r"\bVERT_?CS\s*\[", re.IGNORECASE)
_USER, _WKT = "LASF_Projection", 2112


def crs_of_header(
    header: laspy.LasHeader, bounds: np.ndarray | None = None
) -> tuple[CRS | None, tuple[str, ...]]:
    """The CRS of a scan, and sentences about what was assumed or contradicts itself.

    WKT goes before GeoTIFF keys; the keys are used where there is no WKT, or none that PROJ understands, and for a unit
    of heights that the WKT does not say.

    Args:
        bounds: coordinates (n, 3) of some of its points or of their bounds; None: the bounds in the header.

    Returns:
        The CRS, None where the scan names none, or none that PROJ knows.
    """
    records = _records(header)
    if bounds is None:
        bounds = np.array([header.mins, header.maxs], np.float64)
    of_wkt, notes = _of_wkt(records.get(_WKT, b""))
    of_keys: CRS | None = None
    if DIRECTORY in records:
        keys = parse_keys(records[DIRECTORY], records.get(DOUBLES, b""), records.get(TEXTS, b""))
        of_keys, about_keys = crs_of_keys(keys, bounds)
        if of_wkt is None:
            notes += about_keys
    if of_wkt is None:
        if of_keys is None:
            notes.append("no CRS in the file; metres are assumed." if not notes else "metres are assumed.")
        return of_keys, (*_as_sentences(notes),)
    crs = of_wkt if of_keys is None else _joined(of_wkt, of_keys, notes)
    return crs, (*notes, *contradictory_units(crs))


def _records(header: laspy.LasHeader) -> dict[int, bytes]:
    """Record number -> content, of the records about the CRS; of several the first, VLRs before EVLRs."""
    found: dict[int, bytes] = {}
    for record in [*header.vlrs, *(header.evlrs or [])]:
        if record.user_id == _USER:
            found.setdefault(record.record_id, record.record_data_bytes())
    return found


def _of_wkt(content: bytes) -> tuple[CRS | None, list[str]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    text = text.split("\0")[0].strip()
    if not text:
        return None, []
    try:
        # Some writers put a code, a PROJ string or PROJJSON there.
        return _with_heights_inside(CRS.from_user_input(text), text)
    except CRSError as error:
        reason = one_line(error)
        return None, [f"its CRS cannot be understood ({reason})"]


def _with_heights_inside(crs: CRS, text: str) -> tuple[CRS, list[str]]:
    """A CRS with the vertical one that some writers put inside PROJCS, where the standard has no place for it.

    PROJ passes over it. It matters where heights count in another unit.
    """
    found = _VERTICAL_WKT.search(text)
    if found is None or vertical_part(crs) is not None:
        return crs, []
    end, depth = found.end(), 1
    while end < len(text) and depth:
        depth += {"[": 1, "]": -1}.get(text[end], 0)
        end += 1
    try:
        heights = CRS.from_wkt(f"VERT_CS[{text[found.end() : end]}")
        if metres_per_unit(heights)[1] == metres_per_unit(crs)[1]:
            return crs, []
    except (CRSError, ScanError):
        return crs, []
    return add_heights(crs, heights), [
        f"its WKT has the vertical CRS {name_of(heights)!r} inside of the other."
    ]


def _as_sentences(notes: list[str]) -> list[str]:
    """Notes, the reason and what follows from it as one sentence."""
    if len(notes) == 2 and notes[1] == "metres are assumed.":
        return [f"{notes[0].rstrip('.')}; {notes[1]}"]
    return [note if note.endswith(".") else f"{note}." for note in notes]


def _joined(of_wkt: CRS, of_keys: CRS, notes: list[str]) -> CRS:
    """WKT, with the heights of GeoTIFF keys where it says nothing of heights; what contradicts it is noted."""
    try:
        units, others = metres_per_unit(of_wkt), metres_per_unit(of_keys)
    except ScanError:
        units, others = (1.0, 1.0), (1.0, 1.0)
        same = counts_in_degrees(of_wkt) and counts_in_degrees(of_keys)
    else:
        # Of a local CRS only the unit is known.
        same = units[0] == others[0] if is_local(of_keys) else is_same_ground(of_wkt, of_keys)
    if not same:
        notes.append(
            f"its WKT says {name_of(of_wkt)!r} and its GeoTIFF keys say {name_of(of_keys)!r}; the WKT is followed."
        )
        return of_wkt
    heights = vertical_part(of_keys)
    if heights is None or units[1] == others[1]:
        return of_wkt
    if vertical_part(of_wkt) is None:
        notes.append(f"its WKT says nothing of heights; its GeoTIFF keys say {name_of(heights)!r}.")
        return add_heights(of_wkt, heights)
    notes.append("its WKT and its GeoTIFF keys say different units of heights; the WKT is followed.")
    return of_wkt
