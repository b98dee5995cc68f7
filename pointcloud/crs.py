"""Coordinate reference systems (CRS): their units in metres, and whether two of them are the same.

Sizes in Pointloom are metres, whatever unit the coordinates of a scan count in. Heights may count in another unit than
the horizontal coordinates.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from pyproj import CRS
from pyproj.database import get_units_map
from pyproj.exceptions import CRSError

from pointcloud.errors import PointloomError, ScanError, one_line

FOOT_M = 0.3048
"""The international foot (EPSG unit 9002)."""
US_FOOT_M = 1200 / 3937
"""The US survey foot (EPSG unit 9003), 2 parts in a million longer."""
_FOOT = re.compile(r"f(oo|ee)?t(?![a-z])|foot|feet", re.IGNORECASE)
_US_FOOT = re.compile(r"us|u\.s\.|survey", re.IGNORECASE)
_SAME_UNIT = 1e-9  # relative; the two feet differ by 2e-6
_ROUNDED_UNIT = 5e-7  # relative: a foot written with seven digits


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthUnit:
    """A unit of length: its name as in the EPSG registry, and its length in metres."""

    name: str
    metres: float

    def is_like(self, metres: float) -> bool:
        """Whether a unit of so many metres is this one, up to the digits that files round it to."""
        return math.isclose(self.metres, metres, rel_tol=_SAME_UNIT)

    def to_json(self) -> dict[str, Any]:
        """As PROJJSON writes it."""
        return {"type": "LinearUnit", "name": self.name, "conversion_factor": self.metres}


METRE = LengthUnit(name="metre", metres=1.0)


def metres_per_unit(crs: CRS | None) -> tuple[float, float]:
    """Metres in one horizontal and one vertical unit of a CRS.

    No CRS: metres are assumed. A CRS without a vertical axis: heights are taken in the horizontal unit, as
    surveys in feet deliver them.

    Raises:
        ScanError: a geographic CRS, whose degrees have no fixed length on the ground, or a geocentric one,
            whose axes do not lie along the ground.
    """
    if crs is None:
        return 1.0, 1.0
    axes = _axes(crs)
    if _is_vertical_alone(crs):
        return 1.0, _metres_of(axes[0])
    if counts_in_degrees(crs) or crs.is_geocentric or not axes:
        what = "counts from the centre of the earth" if crs.is_geocentric else "counts in degrees"
        raise ScanError(
            f"CRS {crs.name!r} {what}, expected a projected CRS in metres or feet; reproject the scan first, or give "
            "the CRS that its coordinates are in as crs."
        )
    horizontal = _metres_of(axes[0])
    return horizontal, _metres_of(axes[2]) if len(axes) > 2 else horizontal


def unit_names(crs: CRS | None) -> tuple[str, str]:
    """The names of the horizontal and the vertical unit, chosen as in `metres_per_unit`."""
    axes = _axes(crs) if crs is not None else []
    if not axes:
        return "metre (assumed)", "metre (assumed)"
    if crs is not None and _is_vertical_alone(crs):
        return "metre (assumed)", axes[0].unit_name
    return axes[0].unit_name, axes[2].unit_name if len(axes) > 2 else axes[0].unit_name


def counts_in_degrees(crs: CRS) -> bool:
    """Whether horizontal coordinates of a CRS are angles."""
    axes = _axes(crs)
    return crs.is_geographic or bool(axes and "degree" in axes[0].unit_name)


def name_of(crs: CRS | None) -> str:
    """A readable name of a CRS of any kind, also of one without a name."""
    return (crs.name or crs.type_name) if crs is not None else "no CRS"


def is_local(crs: CRS) -> bool:
    """Whether a CRS has no known place on earth: that of a site, a building, or an unknown projection."""
    return horizontal_part(crs).is_engineering


def horizontal_part(crs: CRS) -> CRS:
    """A CRS without its heights and without the shift to another datum that it may bring (TOWGS84)."""
    if crs.is_compound:
        return horizontal_part(crs.sub_crs_list[0])
    if crs.is_bound and crs.source_crs is not None:
        return horizontal_part(crs.source_crs)
    return crs.to_2d() if len(crs.axis_info) > 2 and not crs.is_engineering else crs


def vertical_part(crs: CRS) -> CRS | None:
    """The CRS of the heights alone; None where a CRS has no such part."""
    if crs.is_bound and crs.source_crs is not None:
        return vertical_part(crs.source_crs)
    if _is_vertical_alone(crs):
        return crs
    return next((part for part in crs.sub_crs_list[1:] if part.is_vertical), None)


def is_same_ground(one: CRS, other: CRS) -> bool:
    """Whether equal coordinates are one place in two CRSs, whatever their notation; heights do not count.

    The order of axes does not count either: x of a point cloud is the easting. A datum that is only called unknown, as
    in PROJ strings and in WKT of older software, is taken for that of the other CRS where the ellipsoids are the same.
    """
    one, other = horizontal_part(one), horizontal_part(other)
    if one == other:
        return True
    first, second = (_east_first(_with_exact_unit(crs).to_json_dict()) for crs in (one, other))
    if has_unknown_datum(one) != has_unknown_datum(other) and _ellipsoid(one) == _ellipsoid(other):
        second = (
            {**second, "base_crs": first["base_crs"]}
            if "base_crs" in first and "base_crs" in second
            else second
        )
    return bool(CRS.from_json_dict(first).equals(CRS.from_json_dict(second), ignore_axis_order=True))


def has_unknown_datum(crs: CRS) -> bool:
    """Whether a CRS on earth names no datum, but an ellipsoid alone."""
    datum = horizontal_part(crs).datum
    return datum is not None and crs.geodetic_crs is not None and "unknown" in datum.name.lower()


def _ellipsoid(crs: CRS) -> tuple[float, float] | None:
    shape = crs.ellipsoid
    return None if shape is None else (shape.semi_major_metre, round(shape.inverse_flattening, 9))


def _east_first(definition: dict[str, Any]) -> dict[str, Any]:
    """PROJJSON of a horizontal CRS, the axis to the east first."""
    system = definition.get("coordinate_system", {"axis": []})
    if [axis["direction"] for axis in system["axis"]] != ["north", "east"] or "base_crs" not in definition:
        return definition
    kept = {key: value for key, value in definition.items() if key not in ("id", "ids")}
    return {**kept, "coordinate_system": {**system, "axis": system["axis"][::-1]}}


def _with_exact_unit(crs: CRS) -> CRS:
    """A horizontal CRS in metres or feet as they are defined, where a file has rounded them."""
    if counts_in_degrees(crs) or crs.is_geocentric or not crs.axis_info or _is_vertical_alone(crs):
        return crs
    metres = metres_per_unit(crs)[0]
    for exact in (1.0, FOOT_M, US_FOOT_M):
        if exact != metres and math.isclose(exact, metres, rel_tol=_ROUNDED_UNIT):
            return CRS.from_json_dict(_with_length(crs.to_json_dict(), metres, exact))
    return crs


def _with_length(definition: Any, metres: float, exact: float) -> Any:
    """PROJJSON in which units of so many metres have another length, those of parameters too."""
    if isinstance(definition, list):
        return [_with_length(part, metres, exact) for part in definition]
    if not isinstance(definition, dict):
        return definition
    made = {key: _with_length(value, metres, exact) for key, value in definition.items()}
    if math.isclose(made.get("conversion_factor", 0), metres, rel_tol=_SAME_UNIT):
        made["conversion_factor"] = exact
    return made


def parse_crs(text: str) -> CRS:
    """A CRS that a user names: an authority's code, WKT, a PROJ string or a name.

    Raises:
        PointloomError: PROJ does not know it, or it has no lengths.
    """
    try:
        crs = CRS.from_user_input(text)
    except CRSError as error:
        reason = one_line(error)
        raise PointloomError(
            f"crs {text!r} is not known ({reason}), expected for instance EPSG:2154, EPSG:2225+5703, or WKT."
        ) from error
    try:
        metres_per_unit(crs)
    except ScanError as error:
        raise PointloomError(f"crs {text!r}: {error}") from error
    return crs


def parse_unit(text: str) -> LengthUnit:
    """A unit that a user names: m, ft, us-ft, km, …, or its name in the EPSG registry.

    Raises:
        PointloomError: there is no such unit of length.
    """
    key = " ".join(text.lower().replace("_", " ").split())
    units = _units_by_name()
    if key not in units:
        raise PointloomError(
            f"unit {text!r} is not known, expected m, ft (international foot), us-ft (US survey foot), or the EPSG "
            "registry's name of a unit of length."
        )
    return units[key]


def unit_of_code(code: int) -> LengthUnit | None:
    """The unit of length with an EPSG code; None where there is none."""
    return _units_by_code().get(str(code))


def unit_of_length(metres: float) -> LengthUnit:
    """The metre or the foot of so many metres, up to the digits that files round it to; otherwise one by its length."""
    known = (METRE, *(parse_unit(name) for name in ("ft", "us-ft")))
    # The two feet differ by less than files round: the nearest.
    nearest = min(known, key=lambda unit: abs(unit.metres - metres))
    if math.isclose(nearest.metres, metres, rel_tol=_ROUNDED_UNIT):
        return nearest
    return LengthUnit(name=f"unit of {metres:g} m", metres=metres)


def with_units(
    crs: CRS | None, horizontal: LengthUnit | None = None, vertical: LengthUnit | None = None
) -> CRS:
    """A CRS whose coordinates count in other units; None leaves a unit as it is.

    Projections keep their parameters: a false easting is as far in metres as before. Without a CRS, or with one whose
    coordinates are not lengths, the result is a local one that is nowhere on earth, in metres unless said otherwise.
    """
    if crs is None or _is_vertical_alone(crs) or crs.is_geocentric or counts_in_degrees(crs):
        heights = vertical_part(crs) if crs is not None else None
        crs = local_crs("local coordinates", horizontal or METRE)
        if heights is not None and vertical is None:
            return add_heights(crs, heights)
    elif horizontal is not None and not horizontal.is_like(metres_per_unit(crs)[0]):
        crs = CRS.from_json_dict(_in_unit(crs.to_json_dict(), slice(0, 2), horizontal))
    if vertical is None or vertical.is_like(metres_per_unit(crs)[1]):
        return crs
    if len(_axes(crs)) > 2:
        return CRS.from_json_dict(_in_unit(crs.to_json_dict(), slice(2, 3), vertical))
    return _compound(crs.to_json_dict(), _heights(vertical), f"{crs.name} + height ({vertical.name})")


def local_crs(name: str, unit: LengthUnit, datum: str = "unknown") -> CRS:
    """A CRS of which nothing is known but its unit; two of them are the same where their datums have one name."""
    axes = [_axis("Easting", "E", "east", unit), _axis("Northing", "N", "north", unit)]
    return CRS.from_json_dict(
        {
            "type": "EngineeringCRS",
            "name": name,
            "datum": {"name": datum},
            "coordinate_system": {"subtype": "Cartesian", "axis": axes},
        }
    )


def add_heights(crs: CRS, heights: CRS) -> CRS:
    """A horizontal CRS with a vertical one."""
    return _compound(crs.to_json_dict(), heights.to_json_dict(), f"{name_of(crs)} + {name_of(heights)}")


def contradictory_units(crs: CRS) -> list[str]:
    """Sentences about units whose length is not what their name says, such as a foot of 1 m."""
    found = {axis.unit_name: axis for axis in _axes(crs) if _named_length(axis) is not None}
    return [
        f"its CRS has a unit {name!r} of {axis.unit_conversion_factor:g} m, which is {_metres_of(axis):.7g} m long; "
        "that is used."
        for name, axis in sorted(found.items())
    ]


def _is_vertical_alone(crs: CRS) -> bool:
    return crs.is_vertical and not crs.is_compound  # a compound one counts as vertical too


def _axes(crs: CRS) -> list[Any]:
    # Axes of a compound CRS come in the order of its parts: two horizontal, one vertical.
    return [axis for part in (crs.sub_crs_list or [crs]) for axis in part.axis_info]


def _metres_of(axis: Any) -> float:
    named = _named_length(axis)
    return float(axis.unit_conversion_factor) if named is None else named


def _named_length(axis: Any) -> float | None:
    """The length of a unit that is called a foot and is given as 1 m; None where name and length agree."""
    if axis.unit_conversion_factor == 1 and _FOOT.search(axis.unit_name):
        return US_FOOT_M if _US_FOOT.search(axis.unit_name) else FOOT_M
    return None


def _compound(horizontal: dict[str, Any], heights: dict[str, Any], name: str) -> CRS:
    return CRS.from_json_dict({"type": "CompoundCRS", "name": name, "components": [horizontal, heights]})


def _heights(unit: LengthUnit) -> dict[str, Any]:
    return {
        "type": "VerticalCRS",
        "name": f"height ({unit.name})",
        "datum": {"type": "VerticalReferenceFrame", "name": "unknown"},
        "coordinate_system": {
            "subtype": "vertical",
            "axis": [_axis("Gravity-related height", "H", "up", unit)],
        },
    }


def _axis(name: str, abbreviation: str, direction: str, unit: LengthUnit) -> dict[str, Any]:
    return {"name": name, "abbreviation": abbreviation, "direction": direction, "unit": unit.to_json()}


def _in_unit(definition: dict[str, Any], axes: slice, unit: LengthUnit) -> dict[str, Any]:
    """PROJJSON with another unit of some axes; what it becomes has no code of its own."""
    if definition["type"] == "BoundCRS":
        return {**definition, "source_crs": _in_unit(definition["source_crs"], axes, unit)}
    made = {key: value for key, value in definition.items() if key not in ("id", "ids")}
    made["name"] = f"{definition['name']} ({unit.name})"
    if definition["type"] == "CompoundCRS":
        heights = axes.start >= 2
        made["components"] = [
            _in_unit(part, slice(0, 2), unit) if (n > 0) == heights else part
            for n, part in enumerate(definition["components"])
        ]
        return made
    system = definition["coordinate_system"]
    changed = range(*axes.indices(len(system["axis"])))
    made["coordinate_system"] = {
        **{key: value for key, value in system.items() if key not in ("id", "ids", "unit")},
        "axis": [
            {**axis, "unit": unit.to_json()} if n in changed else axis
            for n, axis in enumerate(system["axis"])
        ],
    }
    return made


@cache
def _units_by_code() -> dict[str, LengthUnit]:
    units = get_units_map(auth_name="EPSG", category="linear")
    exact = {"9003": US_FOOT_M}  # the database rounds it to 15 digits
    return {
        unit.code: LengthUnit(name=name, metres=exact.get(unit.code, unit.conv_factor))
        for name, unit in units.items()
    }


@cache
def _units_by_name() -> dict[str, LengthUnit]:
    by_code, found = _units_by_code(), dict[str, LengthUnit]()
    for name, unit in get_units_map(auth_name="EPSG", category="linear").items():
        found[name.lower()] = by_code[unit.code]
        if unit.proj_short_name:
            found.setdefault(unit.proj_short_name.lower(), by_code[unit.code])
    for alias, name in (
        ("meter", "metre"), ("meters", "metre"), ("metres", "metre"), ("feet", "foot"),
        ("international foot", "foot"), ("ftus", "us survey foot"), ("us foot", "us survey foot"),
        ("us survey feet", "us survey foot"), ("foot us", "us survey foot"),
    ):  # fmt: skip
        found[alias] = found[name]
    return found
