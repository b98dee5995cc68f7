"""Sizes are metres, whatever a CRS counts in."""

from __future__ import annotations

import pytest
from pyproj import CRS

from pointcloud.crs import metres_per_unit
from pointcloud.errors import ScanError
from pointcloud.formats.reader import read_cloud
from tests.support.clouds import REAL, assert_one_sentence, real_files

US_FOOT, FOOT = 1200 / 3937, 0.3048


@pytest.mark.parametrize(
    ("crs", "expected"),
    [
        (None, (1.0, 1.0)),
        ("EPSG:2154", (1.0, 1.0)),  # RGF93 / Lambert-93
        ("EPSG:28992", (1.0, 1.0)),  # RD New, axes named X and Y
        ("EPSG:31467", (1.0, 1.0)),  # Gauss-Krüger, northing first
        ("EPSG:2994", (FOOT, FOOT)),  # Oregon, international feet
        ("EPSG:2225", (US_FOOT, US_FOOT)),  # California, US survey feet
        ("EPSG:7415", (1.0, 1.0)),  # RD New + NAP height
        ("EPSG:32119+6360", (1.0, US_FOOT)),  # metres + NAVD88 height (ftUS)
        ("EPSG:2225+5703", (US_FOOT, 1.0)),  # US feet + NAVD88 height in metres
        ("EPSG:2225+8228", (US_FOOT, FOOT)),  # two kinds of feet
        ("+proj=utm +zone=33 +ellps=bessel +towgs84=1,2,3 +units=m +type=crs", (1.0, 1.0)),  # bound
        ("+proj=tmerc +lat_0=0 +lon_0=9 +units=km +type=crs", (1000.0, 1000.0)),
    ],
)
def test_metres_in_a_unit(crs: str | None, expected: tuple[float, float]) -> None:
    assert metres_per_unit(CRS(crs) if crs else None) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:4979", "EPSG:4326+5703"])
def test_degrees_are_refused(crs: str) -> None:
    with pytest.raises(ScanError, match="counts in degrees") as error:
        metres_per_unit(CRS(crs))
    assert_one_sentence(error, "WGS 84")


def test_geocentric_coordinates_are_refused() -> None:
    with pytest.raises(ScanError, match="centre of the earth") as error:
        metres_per_unit(CRS("EPSG:4978"))
    assert_one_sentence(error, "WGS 84")


@pytest.mark.parametrize("path", real_files("laspy_sdist/simple.copc.laz"))
def test_a_real_scan_in_metres_with_heights_in_us_feet(path: object) -> None:
    assert REAL.exists()
    cloud = read_cloud(str(path))
    assert metres_per_unit(cloud.crs) == pytest.approx((1.0, US_FOOT), rel=1e-12)
