"""CRSs and units that a user gives, for all scans or by glob."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyproj import CRS

from pointcloud.crs import metres_per_unit
from pointcloud.errors import PointloomError, ScanError
from pointcloud.formats.given_crs import GivenCrs
from pointcloud.formats.reader import iterate_clouds, read_cloud, read_header
from tests.support.clouds import assert_one_sentence, write_las

US_FOOT, FOOT = 1200 / 3937, 0.3048
UTM = CRS("EPSG:26915")
PROJ = "+proj=tmerc +lat_0=0 +lon_0=9 +units=m +type=crs"


@pytest.mark.parametrize(
    ("crs", "units", "own", "expected"),
    [
        (["EPSG:2154"], [], None, (1, 1)),
        (["EPSG:2154"], [], "EPSG:2225", (1, 1)),
        (["EPSG:2225+5703"], [], None, (US_FOOT, 1)),
        ([PROJ], [], None, (1, 1)),
        ([UTM.to_wkt()], [], "EPSG:4326", (1, 1)),
        ([], ["ft"], None, (FOOT, FOOT)),
        ([], ["m,us-ft"], None, (1, US_FOOT)),
        ([], [",us-ft"], "EPSG:26915", (1, US_FOOT)),
        ([], ["us-ft,"], "EPSG:26915+5703", (US_FOOT, 1)),
        ([], ["us-ft"], "EPSG:26915+5703", (US_FOOT, US_FOOT)),
        ([], ["m"], "EPSG:2225", (1, 1)),
        ([], ["m"], "EPSG:4326", (1, 1)),
        (["EPSG:26995"], ["us-ft"], "EPSG:4326", (US_FOOT, US_FOOT)),
        # A horizontal CRS alone leaves the unit of the heights.
        (["EPSG:26915"], [], "EPSG:2225+8228", (1, FOOT)),
        (["EPSG:26915"], ["m"], "EPSG:2225+8228", (1, 1)),
        (["EPSG:26915"], [], "EPSG:4326+5703", (1, 1)),
        # By name of scan, the last counts.
        (["EPSG:2225", "north_*=EPSG:2154"], [], None, (1, 1)),
        (["north_*=EPSG:2154", "EPSG:2225"], [], None, (US_FOOT, US_FOOT)),
        (["south_*=EPSG:2225", "north_[0-9].laz=EPSG:2154"], [], None, (1, 1)),
        ([f"north_1.laz={PROJ}"], [], None, (1, 1)),
        ([], ["ft", "north_*=m,us-ft"], None, (1, US_FOOT)),
    ],
)
def test_units_of_a_scan(
    crs: list[str], units: list[str], own: str | None, expected: tuple[float, float]
) -> None:
    found = GivenCrs.parse(crs, units).of("north_1.laz", CRS(own) if own else None)
    assert found is not None
    assert metres_per_unit(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("crs", "units", "own"),
    [
        ([], [], None),
        (["south_*=EPSG:2154"], ["south_*=ft"], None),
        (["EPSG:26915"], [], UTM),
        ([], ["m"], UTM),
    ],
)
def test_what_is_not_given_stays(crs: list[str], units: list[str], own: CRS | None) -> None:
    assert GivenCrs.parse(crs, units).of("north_1.laz", own) is None


@pytest.mark.parametrize(
    ("crs", "units", "named"),
    [
        (["EPSG:4326"], [], "EPSG:4326"),
        (["EPSG:99999"], [], "EPSG:99999"),
        (["a*=nonsense"], [], "nonsense"),
        ([], ["parsec light"], "parsec light"),
        ([], ["m,ell foot"], "ell foot"),
        ([], ["a*="], "''"),
    ],
)
def test_what_is_not_known_is_refused(crs: list[str], units: list[str], named: str) -> None:
    with pytest.raises(PointloomError) as error:
        GivenCrs.parse(crs, units)
    assert_one_sentence(error, named)


def test_a_glob_that_no_scan_is_called_like_is_refused() -> None:
    given = GivenCrs.parse(["north_*=EPSG:2154"], ["south_*=ft"])
    given.check(["north_1.laz", "south_1.laz"])
    with pytest.raises(PointloomError, match="units") as error:
        given.check(["north_1.laz"])
    assert_one_sentence(error, "'south_*'")


def test_a_scan_is_read_in_a_given_crs(tmp_path: Path) -> None:
    path = str(write_las(tmp_path / "a.las"))
    crs = CRS("EPSG:2225")
    header = read_header(path, crs)
    assert header.crs == crs
    assert next(iterate_clouds(path, crs=crs)).crs == crs
    assert header.crs_notes == (
        "its CRS is taken to be 'NAD83 / California zone 1 (ftUS)' (horizontal unit US survey foot, vertical unit "
        "US survey foot); no CRS in the file.",
    )
    assert read_cloud(path).crs is None
    with pytest.raises(ScanError, match="degrees"):
        metres_per_unit(read_header(path, CRS("EPSG:4326")).crs)
