"""The CRS of a LAS file, from WKT, from GeoTIFF keys, or from both."""

from __future__ import annotations

import struct
from pathlib import Path

import laspy
import numpy as np
import pytest
from pyproj import CRS

from pointcloud.crs import is_same_ground, metres_per_unit
from pointcloud.formats.las import read_header
from tests.support.clouds import REAL, write_las
from tests.support.scan_files import geo_key_records, wkt_record

FOOT, US_FOOT = 0.3048, 1200 / 3937
CASES = REAL.parent / "cases"
UTM = CRS("EPSG:26915").to_wkt("WKT1_GDAL")
UNIT_WITHOUT_LENGTH = (
    f'COMPD_CS["x",{UTM},VERT_CS["NAVD88",VERT_DATUM["NAVD88",2005],UNIT["US survey foot",1.0]]]'
)

# As in files of PDAL's tests: a vertical CRS inside PROJCS.
NESTED = UTM[:-1] + ',VERTCS["NAVD88",VERT_DATUM["NAVD88",2005],UNIT["{}",{}]]]'


def scan(path: Path, wkt: str = "", keys: dict[int, int | float | str] | None = None) -> str:
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.vlrs.extend(geo_key_records(keys) if keys else [])
    header.vlrs.extend([wkt_record(wkt)] if wkt else [])
    return str(write_las(path, header=header))


@pytest.mark.parametrize(
    ("wkt", "keys", "expected", "said"),
    [
        (UTM, {}, (1, 1), ""),
        (UTM, {3072: 26915, 3076: 9001}, (1, 1), ""),
        (UTM, {3072: 26915, 4099: 9003}, (1, US_FOOT), "its WKT says nothing of heights"),
        (UTM, {3072: 2154}, (1, 1), "Lambert-93"),
        (UTM, {1024: 1, 3072: 32767, 3076: 9003}, (1, 1), "the WKT is followed"),
        (UTM, {2048: 4326}, (1, 1), "the WKT is followed"),
        (CRS("EPSG:26915+5703").to_wkt(), {3072: 26915, 4099: 9003}, (1, 1), "different units of heights"),
        (UNIT_WITHOUT_LENGTH, {}, (1, US_FOOT), "a unit 'US survey foot' of 1 m"),
        (NESTED.format("US survey foot", 0.304800609601219), {}, (1, US_FOOT), "inside of the other"),
        (NESTED.format("US survey foot", 1.0), {}, (1, US_FOOT), "a unit 'US survey foot' of 1 m"),
        (NESTED.format("metre", 1.0), {}, (1, 1), ""),
        ("PROJCS[nonsense", {3072: 2225}, (US_FOOT, US_FOOT), "cannot be understood"),
        ("PROJCS[nonsense", {}, (1, 1), "cannot be understood"),
        ("", {}, (1, 1), "no CRS in the file; metres are assumed."),
    ],
)
def test_units(
    tmp_path: Path, wkt: str, keys: dict[int, int | float | str], expected: tuple[float, float], said: str
) -> None:
    header = read_header(scan(tmp_path / "a.las", wkt, keys))
    assert metres_per_unit(header.crs) == pytest.approx(expected, rel=1e-12)
    assert (said in " ".join(header.crs_notes)) if said else header.crs_notes == ()


def test_wkt_that_is_not_utf_8_is_read(tmp_path: Path) -> None:
    path = Path(scan(tmp_path / "a.las", UTM.replace("NAD83 / UTM", "Hohe / UTM")))
    path.write_bytes(path.read_bytes().replace(b"Hohe / UTM", b"H\xf6he / UTM"))
    header = read_header(str(path))
    assert header.crs is not None
    assert is_same_ground(header.crs, CRS("EPSG:26915"))


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + UTM.encode() + b"\0",
        UTM.encode("utf-16"),
        b"EPSG:26915\0",
        b"+proj=utm +zone=15 +datum=NAD83",
        CRS("EPSG:26915").to_json().encode(),
        CRS("EPSG:26915").to_wkt("WKT1_ESRI").encode(),
        UTM.replace("NAD83 / UTM", "\u041c / UTM").encode("cp1251"),
    ],
    ids=["with a byte order mark", "UTF-16", "code", "PROJ string", "PROJJSON", "ESRI", "Cyrillic"],
)
def test_a_crs_in_other_notations_and_encodings(tmp_path: Path, content: bytes) -> None:
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.vlrs.append(laspy.VLR("LASF_Projection", 2112, "", content))
    found = read_header(str(write_las(tmp_path / "a.las", header=header)))
    assert found.crs is not None
    assert is_same_ground(found.crs, CRS("EPSG:26915"))
    assert found.crs_notes == ()


def test_a_long_text_that_is_no_crs_is_shortened(tmp_path: Path) -> None:
    header = read_header(scan(tmp_path / "a.las", UTM[:-3] * 50))
    assert header.crs is None
    assert len(header.crs_notes[0]) < 400


@pytest.mark.parametrize("bounds", [[0.0] * 6, [np.nan] * 6])
def test_the_points_tell_degrees_where_the_bounds_in_the_header_do_not(
    tmp_path: Path, bounds: list[float]
) -> None:
    path = Path(scan(tmp_path / "a.las", keys={1024: 1, 3072: 4326, 3076: 9001}))
    content = bytearray(path.read_bytes())
    struct.pack_into("<6d", content, 179, *bounds)
    content[131:179] = struct.pack("<6d", 0.01, 0.01, 0.01, 5e5, 4e6, 0)
    path.write_bytes(content)
    header = read_header(str(path))
    assert metres_per_unit(header.crs) == (1, 1)
    assert "its coordinates do not" in header.crs_notes[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a01_userdefined_feet.las", (US_FOOT, US_FOOT)),
        ("a02_metres_vertical_feet.las", (1, US_FOOT)),
        ("a04_code_metres_unit_feet.las", (US_FOOT, US_FOOT)),
        ("pdal_mvk-thin.las", (US_FOOT, US_FOOT)),
        ("pdal_thin-1.las", (FOOT, FOOT)),
    ],
)
def test_files_of_others(name: str, expected: tuple[float, float]) -> None:
    path = CASES / "geokeys_units" / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    header = read_header(str(path))
    assert metres_per_unit(header.crs) == pytest.approx(expected, rel=1e-12)
    assert "no CRS" not in " ".join(header.crs_notes)
