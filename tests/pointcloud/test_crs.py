"""Sizes are metres, whatever a CRS counts in."""

from __future__ import annotations

import re

import pytest
from pyproj import CRS

from pointcloud.crs import (
    METRE,
    add_heights,
    contradictory_units,
    is_same_ground,
    local_crs,
    metres_per_unit,
    name_of,
    parse_crs,
    parse_unit,
    unit_names,
    with_units,
)
from pointcloud.errors import PointloomError, ScanError
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


BOUND = "+proj=utm +zone=15 +datum=NAD83 +units=m +towgs84=0,0,0 +type=crs"
UTM = CRS("EPSG:26915")
UNUSUAL = {
    "bound": CRS(BOUND),
    "bound and compound": add_heights(CRS(BOUND), CRS("EPSG:5703")),
    "compound": CRS("EPSG:26915+5703"),
    "with ellipsoidal heights": UTM.to_3d(),
    "heights alone": CRS("EPSG:5703"),
    "local": CRS('LOCAL_CS["",LOCAL_DATUM["y",0],UNIT["metre",1]]'),
    "engineering": CRS(
        'ENGCRS["site",EDATUM["d"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    ),
    "without authority": CRS(UTM.to_wkt("WKT1_ESRI").replace("NAD_1983_UTM_Zone_15N", "unnamed")),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_every_kind_of_crs_has_units_and_a_name(kind: str) -> None:
    crs = UNUSUAL[kind]
    assert metres_per_unit(crs) == (1, 1)
    assert name_of(crs)
    assert all(name.startswith("metre") for name in unit_names(crs))
    assert contradictory_units(crs) == []


@pytest.mark.parametrize("kind", UNUSUAL)
@pytest.mark.parametrize("horizontal", [None, "m", "us-ft"])
@pytest.mark.parametrize("vertical", [None, "m", "ft"])
def test_other_units(kind: str, horizontal: str | None, vertical: str | None) -> None:
    h, v = (parse_unit(text) if text else None for text in (horizontal, vertical))
    made = with_units(UNUSUAL[kind], h, v)
    own_heights = kind in ("bound and compound", "compound", "with ellipsoidal heights", "heights alone")
    expected = h.metres if h else 1
    expected_vertical = v.metres if v else 1 if own_heights else expected
    assert metres_per_unit(made) == pytest.approx((expected, expected_vertical), rel=1e-12)
    assert metres_per_unit(CRS.from_json(made.to_json())) == pytest.approx(metres_per_unit(made), rel=1e-12)


def test_another_unit_is_the_same_place() -> None:
    feet = with_units(CRS("EPSG:26995"), parse_unit("us-ft"))
    assert is_same_ground(feet, CRS("EPSG:2255"))
    assert feet.to_authority() == ("EPSG", "2255")


def test_degrees_and_no_crs_become_a_local_crs_in_a_given_unit() -> None:
    for crs in (None, CRS("EPSG:4326"), CRS("EPSG:4978"), CRS("EPSG:5703")):
        made = with_units(crs, parse_unit("ft"), parse_unit("m"))
        assert metres_per_unit(made) == (FOOT, 1)
        assert made.is_engineering or made.is_compound


@pytest.mark.parametrize(
    "words",
    [
        UTM.to_wkt("WKT1_GDAL"),
        UTM.to_wkt("WKT1_ESRI"),
        UTM.to_wkt("WKT2_2019"),
        UTM.to_json(),
        BOUND,
        "+proj=utm +zone=15 +datum=NAD83 +units=m +type=crs",
        "EPSG:26915+5703",
        "EPSG:26915+6360",
        UNUSUAL["without authority"].to_wkt(),
    ],
)
def test_one_crs_in_other_words(words: str) -> None:
    assert is_same_ground(UTM, CRS(words))
    assert is_same_ground(CRS(words), UTM)


@pytest.mark.filterwarnings("ignore:You will likely lose")
@pytest.mark.parametrize("code", [2154, 28992, 27700, 2193, 31467, 2180, 3035, 3067, 2225, 6432, 3042, 5514])
@pytest.mark.parametrize("version", ["WKT1_GDAL", "WKT1_ESRI", "WKT2_2019", "proj4", "unknown datum"])
def test_one_crs_in_other_words_whatever_its_axes_and_datum(code: int, version: str) -> None:
    crs = CRS.from_epsg(code)
    if version == "proj4":
        other = CRS(f"{crs.to_proj4()} +type=crs")
    elif version == "unknown datum":
        wkt = re.sub(r',AUTHORITY\["EPSG","\d+"\]', "", crs.to_wkt("WKT1_GDAL"))
        other = CRS(re.sub(r'(GEOGCS|DATUM|PROJCS)\["[^"]*"', r'\1["unknown"', wkt))
    else:
        other = CRS(crs.to_wkt(version))
    assert is_same_ground(crs, other)
    assert is_same_ground(other, crs)
    assert not is_same_ground(CRS("EPSG:32633"), other)


@pytest.mark.parametrize("other", ["EPSG:26916", "EPSG:32615", "EPSG:6344", "EPSG:26715", "EPSG:4269"])
def test_other_zones_and_datums_are_other_ground(other: str) -> None:
    assert not is_same_ground(UTM, CRS(other))
    assert not is_same_ground(UTM, local_crs("NAD83 / UTM zone 15N", METRE))


def test_two_kinds_of_feet_are_other_ground() -> None:
    survey, international = (with_units(CRS("EPSG:26995"), parse_unit(u)) for u in ("us-ft", "ft"))
    assert not is_same_ground(survey, international)


@pytest.mark.parametrize(
    ("text", "metres"),
    [("m", 1), ("Metre", 1), ("meters", 1), ("ft", FOOT), ("feet", FOOT), ("us-ft", US_FOOT), ("ftUS", US_FOOT),
     ("US survey foot", US_FOOT), ("US_survey_foot", US_FOOT), ("km", 1000), ("yd", 0.9144)],
)  # fmt: skip
def test_units_by_name(text: str, metres: float) -> None:
    assert parse_unit(text).metres == pytest.approx(metres, rel=1e-15)


@pytest.mark.parametrize("text", ["", "furlong long", "degree", "1"])
def test_what_is_no_unit_is_refused(text: str) -> None:
    with pytest.raises(PointloomError, match="us-ft") as error:
        parse_unit(text)
    assert_one_sentence(error, repr(text))


@pytest.mark.parametrize("text", ["EPSG:99999", "EPSG:4326", "EPSG:4978", "utm 15", "", "PROJCS[nonsense"])
def test_a_crs_that_cannot_be_used_is_refused(text: str) -> None:
    with pytest.raises(PointloomError, match="crs") as error:
        parse_crs(text)
    assert_one_sentence(error, repr(text))


def test_a_foot_of_a_metre_is_a_foot() -> None:
    wkt = (
        UNUSUAL["compound"]
        .to_wkt("WKT1_GDAL")
        .replace('UNIT["metre",1,AUTHORITY["EPSG","9001"]],AXIS["Gr', "@")
    )
    crs = CRS(wkt.replace("@", 'UNIT["US survey foot",1.0],AXIS["Gr'))
    assert metres_per_unit(crs) == (1, US_FOOT)
    assert len(contradictory_units(crs)) == 1
