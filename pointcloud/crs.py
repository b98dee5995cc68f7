"""Units of a coordinate reference system: sizes in Pointloom are metres whatever the scan's CRS counts in."""

from __future__ import annotations

from typing import Any

from pyproj import CRS

from pointcloud.errors import ScanError


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
    if crs.is_geographic or crs.is_geocentric or not axes or "degree" in axes[0].unit_name:
        what = "counts from the centre of the earth" if crs.is_geocentric else "counts in degrees"
        raise ScanError(
            f"CRS {crs.name!r} {what}, expected a projected CRS in metres or feet; reproject the scan first."
        )
    horizontal = axes[0].unit_conversion_factor
    vertical = axes[2].unit_conversion_factor if len(axes) > 2 else horizontal
    return horizontal, vertical


def unit_names(crs: CRS | None) -> tuple[str, str]:
    """The names of the horizontal and the vertical unit, chosen as in `metres_per_unit`."""
    axes = _axes(crs) if crs is not None else []
    if not axes:
        return "metre (assumed)", "metre (assumed)"
    return axes[0].unit_name, axes[2].unit_name if len(axes) > 2 else axes[0].unit_name


def _axes(crs: CRS) -> list[Any]:
    # Axes of a compound CRS come in the order of its parts: two horizontal, one vertical.
    return [axis for part in (crs.sub_crs_list or [crs]) for axis in part.axis_info]
