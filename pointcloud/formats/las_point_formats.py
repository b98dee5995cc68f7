"""Point formats 0 to 5 and their successors 6 to 10, which have a byte for the class: nothing is lost between them.

LAS 1.4 R16, tables 7 to 17: a successor has every field of its predecessor, the scan angle in finer steps.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy

import laspy
import numpy as np
from laspy.vlrs.known import WktCoordinateSystemVlr
from pyproj.exceptions import CRSError

from pointcloud.crs import is_local
from pointcloud.formats.las_crs import crs_of_header

SUCCESSOR = {0: 6, 1: 6, 2: 7, 3: 7, 4: 9, 5: 10}
"""Point format -> the first with all its fields and a whole byte for the class."""
LAST_SHORT_CODE = 31
_ANGLE_STEP = 0.006  # degrees, of the newer scan angle


def upgrade(header: laspy.LasHeader) -> laspy.LasHeader:
    """A LAS 1.4 header of the successor's point format, with the same VLRs and extra dimensions; the same from 6 on.

    The newer formats say their CRS in WKT; where a scan says it otherwise, WKT comes beside that.
    """
    new = deepcopy(header)
    if header.point_format.id not in SUCCESSOR:
        return new
    point_format = laspy.PointFormat(SUCCESSOR[header.point_format.id])
    point_format.dimensions.extend(deepcopy(list(header.point_format.extra_dimensions)))
    new.set_version_and_point_format(laspy.header.Version(1, 4), point_format)
    if any(isinstance(vlr, WktCoordinateSystemVlr) for vlr in header.vlrs):
        new.global_encoding.wkt = True
        return new
    try:
        crs, _ = crs_of_header(header)
        if crs is not None and not is_local(crs):
            new.vlrs.append(WktCoordinateSystemVlr(crs.to_wkt("WKT1_GDAL")))
            new.global_encoding.wkt = True
    except CRSError:
        pass  # what the scan says of its CRS goes along as it is
    return new


def added_records(old: laspy.LasHeader, new: laspy.LasHeader) -> list[WktCoordinateSystemVlr]:
    """The records that `upgrade` has added to a header: the CRS in WKT, or none."""
    had = any(isinstance(vlr, WktCoordinateSystemVlr) for vlr in old.vlrs)
    return [] if had else [vlr for vlr in new.vlrs if isinstance(vlr, WktCoordinateSystemVlr)]


def has_short_codes(dimensions: Collection[str]) -> bool:
    """Whether a LAS file with these dimensions has 5 bits for the class: only point formats 0 to 5 have the rank."""
    return "scan_angle_rank" in dimensions


def copy_points(source: laspy.ScaleAwarePointRecord, to: laspy.ScaleAwarePointRecord) -> None:
    """Copy every dimension of points to others of the same point format or its successor."""
    if source.point_format.id == to.point_format.id:
        for name in source.array.dtype.names or ():
            to.array[name] = source.array[name]
        return
    for name in source.point_format.dimension_names:
        if name == "scan_angle_rank":
            to.array["scan_angle"] = angle_of_rank(source.array[name])
        elif name in (source.array.dtype.names or ()):
            to.array[name] = source.array[name]
        else:
            to[name] = np.asarray(source[name])


def angle_of_rank(rank: np.ndarray) -> np.ndarray:
    """Scan angles (P,) int16 in steps of 0.006°, of whole degrees."""
    return np.rint(rank / _ANGLE_STEP).astype(np.int16)
