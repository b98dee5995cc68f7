"""The CRS that GeoTIFF keys in a LAS file describe: its codes, and the units that its coordinates and heights count in.

Keys and their meaning: OGC GeoTIFF 1.1 (19-008r4), chapter 7; LAS 1.4 R16, section 3.2 has the records that hold them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from math import isclose
from typing import TypeAlias

import numpy as np
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from pointcloud.crs import (
    METRE,
    LengthUnit,
    add_heights,
    counts_in_degrees,
    horizontal_part,
    local_crs,
    metres_per_unit,
    parse_unit,
    unit_names,
    unit_of_code,
    unit_of_length,
    with_units,
)
from pointcloud.errors import ScanError

DIRECTORY, DOUBLES, TEXTS = 34735, 34736, 34737
"""Record numbers of the keys, of their numbers and of their texts."""

Keys: TypeAlias = Mapping[int, "int | float | str"]

_MODEL, _CITATION = 1024, 1026
_GEODETIC = 2048
_PROJECTED, _PROJECTED_CITATION, _PROJECTION, _METHOD = 3072, 3073, 3074, 3075
_UNIT, _UNIT_METRES = 3076, 3077
_VERTICAL, _VERTICAL_CITATION, _VERTICAL_UNIT = 4096, 4097, 4099
_MODEL_PROJECTED, _MODEL_GEOGRAPHIC, _MODEL_GEOCENTRIC = 1, 2, 3
_PARAMETERS = range(3078, 3096)
_EPSG_CODES = range(1024, 32767)
_USER_DEFINED = 32767
_TWO_FEET = 1e-5  # relative; the two feet are nearer than that
_MARGIN_DEGREES = 1.0  # around the area that a CRS is made for
_WKT_IN_TEXT = re.compile(r"ESRI PE String\s*=\s*(.+)", re.DOTALL)
_NAME_IN_TEXT = re.compile(r"PCS Name\s*=\s*(.+)")
_UNIT_IN_TEXT = re.compile(
    r"\b(us[- ]?ft|ft[- ]?us|u\.?s\.?[- ]survey|feet|foot|ft|met(?:re|er)s?)\b", re.IGNORECASE
)
# The names of ESRI for State Plane say "Feet" for US survey feet and "Feet_Intl" for the others.
_US_IN_TEXT = re.compile(r"\b(us|u\.s\.|usft|ftus|survey|state ?plane)(?![a-z])", re.IGNORECASE)
_INTERNATIONAL_IN_TEXT = re.compile(r"\bint(l|ernational)?(?![a-z])|\bift\b", re.IGNORECASE)
_SHORTEST_UNIT_M, _LONGEST_UNIT_M = 1e-4, 1e4


def parse_keys(directory: bytes, doubles: bytes = b"", texts: bytes = b"") -> dict[int, int | float | str]:
    """Key -> its value, of the three records; keys whose value is not there are left out."""
    found: dict[int, int | float | str] = {}
    shorts = struct.unpack(f"<{len(directory) // 2}H", directory[: len(directory) // 2 * 2])
    for at in range(4, len(shorts) - 3, 4):
        key, record, count, value = shorts[at : at + 4]
        if record == 0 and key:
            found[key] = value
        elif record == DOUBLES and 8 * (value + 1) <= len(doubles):
            found[key] = struct.unpack_from("<d", doubles, 8 * value)[0]
        elif record == TEXTS and value < len(texts):
            found[key] = texts[value : value + count].decode("utf-8", "replace").rstrip("\0|").strip()
    return found


def crs_of_keys(keys: Keys, bounds: np.ndarray | None = None) -> tuple[CRS | None, list[str]]:
    """The CRS that keys describe, and sentences about what was assumed or contradicts itself.

    The unit keys say in what the coordinates count, also where a code says otherwise, as far as the coordinates do
    not speak against it. A projection without a code is a local CRS with the right unit, unless its name is known.

    Args:
        keys: as `parse_keys` gives them.
        bounds: (2, 3) lowest and highest coordinates; None where they are not known.

    Returns:
        The CRS, None where the keys name none.
    """
    notes: list[str] = []
    unit = _unit(keys, notes)
    crs = _of_code(keys, bounds, notes)
    if crs is None and _is_projection(keys):
        crs = _of_text(keys, notes)
        if crs is None:
            return _with_heights(_without_code(keys, unit, notes), keys, notes), notes
    if crs is None:
        crs = _geodetic(keys, bounds, notes)
    elif unit is not None:
        crs = _in_unit_of_key(crs, unit, bounds, notes)
    return _with_heights(crs, keys, notes), notes


def _is_projection(keys: Keys) -> bool:
    """Whether coordinates are projected, whatever the geographic CRS that the projection begins with."""
    model = keys.get(_MODEL)
    return model == _MODEL_PROJECTED or (
        model not in (_MODEL_GEOGRAPHIC, _MODEL_GEOCENTRIC)
        and bool({_PROJECTED, _PROJECTION, _METHOD} & keys.keys() or _is_unit_alone(keys))
    )


def _is_unit_alone(keys: Keys) -> bool:
    return bool({_UNIT, _UNIT_METRES} & keys.keys()) and _GEODETIC not in keys


def _code(keys: Keys, key: int) -> int | None:
    """The EPSG code under a key; None where it has none."""
    value = keys.get(key)
    return value if isinstance(value, int) and value in _EPSG_CODES else None


def _text(keys: Keys, *wanted: int) -> str:
    """The first of some texts that says something."""
    return next((text for key in wanted if isinstance(text := keys.get(key), str) and text), "")


def _unit(keys: Keys, notes: list[str]) -> LengthUnit | None:
    """The unit of the horizontal coordinates; None where no key says it."""
    code, metres = keys.get(_UNIT), keys.get(_UNIT_METRES)
    if isinstance(code, int) and code in _EPSG_CODES:
        unit = unit_of_code(code)
        if unit is None:
            notes.append(f"its key {_UNIT} names the unit EPSG:{code}, which is not known as one of length.")
        return unit
    if code != _USER_DEFINED or not isinstance(metres, float):
        return None
    if not _SHORTEST_UNIT_M <= metres <= _LONGEST_UNIT_M:
        notes.append(
            f"its key {_UNIT_METRES} names a unit of {metres:g} m, which is not possible; it is not used."
        )
        return None
    return unit_of_length(metres)


def _of_code(keys: Keys, bounds: np.ndarray | None, notes: list[str]) -> CRS | None:
    code = _code(keys, _PROJECTED)
    if code is None:
        return _projected_under_geodetic(keys, notes)
    try:
        crs = CRS.from_epsg(code)
    except CRSError:
        notes.append(f"its key {_PROJECTED} names EPSG:{code}, which PROJ does not know.")
        return None
    if not counts_in_degrees(crs) or keys.get(_MODEL) != _MODEL_PROJECTED or _may_be_degrees(bounds):
        return crs
    notes.append(f"its key {_PROJECTED} names EPSG:{code}, which counts in degrees; its coordinates do not.")
    return None


def _projected_under_geodetic(keys: Keys, notes: list[str]) -> CRS | None:
    """The projected CRS whose code stands under the key of the geographic one; None where there is none."""
    code = _code(keys, _GEODETIC)
    if code is None:
        return None
    try:
        crs = CRS.from_epsg(code)
    except CRSError:
        return None
    if not horizontal_part(crs).is_projected:
        return None
    notes.append(f"its key {_GEODETIC} names {crs.name!r}, which belongs under key {_PROJECTED}; it is used.")
    return crs


def _of_text(keys: Keys, notes: list[str]) -> CRS | None:
    """The projected CRS that a text names or defines; None where none does, or PROJ does not know it."""
    for key in (_PROJECTED_CITATION, _CITATION):
        text = _text(keys, key)
        definition = _WKT_IN_TEXT.search(text)
        names = [definition[1].strip("| ")] if definition else []
        for part in text.split("|"):
            named = _NAME_IN_TEXT.search(part)
            names.append((named[1] if named else part).strip())
        for name in filter(None, names):
            try:
                crs = CRS.from_user_input(name)
            except CRSError:
                continue
            if crs.is_projected:
                notes.append(f"its projection has no code that is known; its text names {crs.name!r}.")
                return crs
    return None


def _without_code(keys: Keys, unit: LengthUnit | None, notes: list[str]) -> CRS | None:
    """A local CRS for a projection that is known by its parameters, its name or its unit alone; None without these."""
    text = _text(keys, _PROJECTED_CITATION, _CITATION).split("|")[0].strip()
    unit = unit or _unit_in_text(_text(keys, _PROJECTED_CITATION, _CITATION))
    parameters = {key: value for key, value in sorted(keys.items()) if key in _PARAMETERS}
    if unit is None and not text and not parameters:
        return None
    notes.append(
        f"its projection{f' {text!r}' if text else ''} has no code that is known, so where it lies on earth is not "
        f"known either; {f'its unit is the {unit.name}' if unit else 'metres are assumed'}."
    )
    # With other parameters the same numbers are another place.
    datum = " ".join([text, *(f"{key}={value}" for key, value in parameters.items())]).strip()
    return local_crs(f"user-defined projection {text}".strip(), unit or METRE, datum or "unknown")


def _geodetic(keys: Keys, bounds: np.ndarray | None, notes: list[str]) -> CRS | None:
    """The geographic or geocentric CRS of a scan without projection; who measures lengths refuses it."""
    code = _code(keys, _GEODETIC)
    if code is not None:
        try:
            return CRS.from_epsg(code)
        except CRSError:
            notes.append(f"its key {_GEODETIC} names EPSG:{code}, which PROJ does not know.")
    if keys.get(_MODEL) == _MODEL_GEOGRAPHIC and _may_be_degrees(bounds):
        return CRS.from_epsg(4326)
    return None


def _may_be_degrees(bounds: np.ndarray | None) -> bool:
    """Whether coordinates may be longitude and latitude, as far as bounds tell."""
    if bounds is None or not np.isfinite(bounds).all():
        return True
    return bool(np.abs(bounds[:, :2]).max() <= 360)


def _in_unit_of_key(crs: CRS, unit: LengthUnit, bounds: np.ndarray | None, notes: list[str]) -> CRS:
    """A CRS in the unit that key 3076 names, unless the coordinates say that the code is right."""
    try:
        own, _ = metres_per_unit(crs)
    except ScanError:  # in degrees: there is no length that could contradict
        return crs
    if unit.is_like(own):
        return crs
    says = (
        f"its CRS {crs.name!r} counts in the {unit_names(crs)[0]}, its GeoTIFF key {_UNIT} says {unit.name}"
    )
    if isclose(unit.metres, own, rel_tol=_TWO_FEET):
        notes.append(f"{says}; the CRS is followed.")
        return crs
    other = with_units(crs, unit)
    if _lies_within(crs, bounds, crs) and not _lies_within(other, bounds, crs):
        notes.append(f"{says}; the CRS is followed, because its coordinates lie where that is used.")
        return crs
    notes.append(f"{says}; the key is followed.")
    return other


def _lies_within(crs: CRS, bounds: np.ndarray | None, made_for: CRS) -> bool:
    """Whether the middle of bounds lies in the area that a CRS is made for."""
    area = made_for.area_of_use
    if area is None or bounds is None or not np.isfinite(bounds).all() or crs.geodetic_crs is None:
        return False
    x, y = bounds[:, :2].mean(axis=0).tolist()
    try:
        flat = horizontal_part(crs)
        to_degrees = Transformer.from_crs(flat, flat.geodetic_crs, always_xy=True)
        east, north = to_degrees.transform(x, y, errcheck=True)
    except ProjError:
        return False
    m = _MARGIN_DEGREES
    return bool(area.south - m <= north <= area.north + m and area.west - m <= east <= area.east + m)


def _with_heights(crs: CRS | None, keys: Keys, notes: list[str]) -> CRS | None:
    """A CRS whose heights count as the vertical keys say; itself where that is its own unit."""
    try:
        own = metres_per_unit(crs)[1]
    except ScanError:  # in degrees; refused where lengths are measured
        return crs
    heights, unit = _vertical(keys, notes)
    if unit is None or unit.is_like(own):
        return crs
    if heights is None:
        return with_units(crs, vertical=unit)
    return with_units(add_heights(crs or local_crs("local coordinates", METRE), heights), vertical=unit)


def _vertical(keys: Keys, notes: list[str]) -> tuple[CRS | None, LengthUnit | None]:
    """The CRS of the heights and their unit, each None where the keys do not say it."""
    code, unit_code = _code(keys, _VERTICAL), _code(keys, _VERTICAL_UNIT)
    heights = None
    if code is not None:
        try:
            heights = CRS.from_epsg(code)
        except CRSError:  # as 5103, the code of the datum, which many files have there
            heights = None
        heights = heights if heights is not None and heights.is_vertical else None
    unit = unit_of_code(unit_code) if unit_code is not None else None
    if unit_code is not None and unit is None:
        notes.append(
            f"its key {_VERTICAL_UNIT} names the unit EPSG:{unit_code}, which is not known as one of length."
        )
    if heights is None:
        return None, unit or _unit_in_text(_text(keys, _VERTICAL_CITATION))
    name, metres = heights.axis_info[0].unit_name, metres_per_unit(heights)[1]
    if unit is None or unit.is_like(metres):
        return heights, unit or LengthUnit(name=name, metres=metres)
    notes.append(
        f"its vertical CRS {heights.name!r} counts in the {name}, its GeoTIFF key {_VERTICAL_UNIT} says {unit.name}; "
        "the key is followed."
    )
    return heights, unit


def _unit_in_text(text: str) -> LengthUnit | None:
    """The unit that a text names, such as "NAVD88 - Geoid03 (Feet)"; None where it names none."""
    words = text.replace("_", " ")
    found = _UNIT_IN_TEXT.search(words)
    if found is None:
        return None
    if found[1].lower().startswith("met"):
        return METRE
    is_us = _US_IN_TEXT.search(words) is not None and _INTERNATIONAL_IN_TEXT.search(words) is None
    return parse_unit("us-ft" if is_us else "ft")
