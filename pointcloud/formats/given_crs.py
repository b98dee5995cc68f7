"""The CRS and the units that a user gives for scans whose files name none, or a wrong one."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyproj import CRS

from pointcloud.crs import (
    LengthUnit,
    add_heights,
    counts_in_degrees,
    metres_per_unit,
    parse_crs,
    parse_unit,
    vertical_part,
    with_units,
)
from pointcloud.errors import PointloomError

_WKT = re.compile(r"\w+\s*\[\s*\"")
_EVERY = "*"

CRS_HELP = (
    "CRS of the scans in place of what their files say, such as EPSG:2154 or EPSG:2225+5703; for some of them as "
    "GLOB=EPSG:2154. The files stay as they are."
)
UNITS_HELP = (
    "Unit that the scans' coordinates count in, in place of what their files say: m, ft, us-ft; horizontal and "
    "vertical as m,us-ft; for some of them as GLOB=us-ft."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenCrs:
    """CRSs and units by name of scan; of several that fit a name the last counts.

    Attributes:
        crs: glob and CRS.
        units: glob, horizontal unit and vertical unit; None leaves a unit as it is.
    """

    crs: tuple[tuple[str, CRS], ...] = ()
    units: tuple[tuple[str, LengthUnit | None, LengthUnit | None], ...] = ()

    @staticmethod
    def parse(crs: Sequence[str] = (), units: Sequence[str] = ()) -> GivenCrs:
        """From what a user writes, each `VALUE` or `GLOB=VALUE`.

        Raises:
            PointloomError: a CRS or a unit that is not known, or has no lengths.
        """
        return GivenCrs(
            crs=tuple((glob, parse_crs(value)) for glob, value in map(_split, crs)),
            units=tuple((glob, *_units(value)) for glob, value in map(_split, units)),
        )

    def check(self, scans: Iterable[str]) -> None:
        """Raise PointloomError where a glob fits the name of no scan."""
        names = list(scans)
        for option, globs in (("crs", [g for g, _ in self.crs]), ("units", [g for g, *_ in self.units])):
            for glob in globs:
                if not any(_fits(name, glob) for name in names):
                    raise PointloomError(
                        f"{option} is given for {glob!r}, and none of the {len(names)} scans, such as {names[0]!r}, "
                        "has such a name; give a glob of their names."
                    )

    def of(self, scan: str, own: CRS | None) -> CRS | None:
        """The CRS to use for a scan in place of its own; None where it keeps that.

        Args:
            scan: its name.
            own: what its file says. A given CRS without heights keeps the file's unit of heights.
        """
        crs = next((crs for glob, crs in reversed(self.crs) if _fits(scan, glob)), None)
        units = next((units for glob, *units in reversed(self.units) if _fits(scan, glob)), None)
        if crs is None and units is None:
            return None
        if crs is not None and vertical_part(crs) is None:
            crs = _with_heights_of(own, crs)
        crs = crs if crs is not None else own
        if units is not None:
            crs = with_units(crs, *units)
        return None if own is not None and crs == own else crs


def _with_heights_of(own: CRS | None, crs: CRS) -> CRS:
    """A CRS without heights with those of another, where they count in another unit."""
    heights = vertical_part(own) if own is not None else None
    if own is None or heights is None or counts_in_degrees(own):
        return crs
    return crs if metres_per_unit(heights)[1] == metres_per_unit(crs)[1] else add_heights(crs, heights)


def _split(text: str) -> tuple[str, str]:
    """`GLOB=VALUE` as two, `VALUE` for every scan; PROJ strings and WKT have signs of equality of their own."""
    glob, sign, value = text.partition("=")
    if not sign or glob.startswith("+") or _WKT.match(text):
        return _EVERY, text
    return glob.rstrip("/"), value


def _units(text: str) -> tuple[LengthUnit | None, LengthUnit | None]:
    horizontal, comma, vertical = (part.strip() for part in text.partition(","))
    if not comma:
        return parse_unit(horizontal), parse_unit(horizontal)
    return parse_unit(horizontal) if horizontal else None, parse_unit(vertical) if vertical else None


def _fits(scan: str, glob: str) -> bool:
    return scan == glob or fnmatch.fnmatchcase(scan, glob)
