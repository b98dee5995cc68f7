"""GeoTIFF keys: whichever way they say a unit, lengths come out in metres, or the contradiction is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from pointcloud.crs import is_local, is_same_ground, metres_per_unit
from pointcloud.errors import ScanError
from pointcloud.formats.geotiff_keys import crs_of_keys, parse_keys
from tests.support.scan_files import geo_key_records

FOOT, US_FOOT = 0.3048, 1200 / 3937
MODEL, CITATION, GEODETIC, PROJECTED, PCS_CITATION, METHOD, UNIT, UNIT_METRES = (
    1024, 1026, 2048, 3072, 3073, 3075, 3076, 3077,
)  # fmt: skip
VERTICAL, VERTICAL_CITATION, VERTICAL_UNIT = 4096, 4097, 4099
USER = 32767
ESRI = CRS("EPSG:2255").to_wkt("WKT1_ESRI")


@pytest.mark.parametrize(
    ("keys", "expected", "said"),
    [
        ({MODEL: 1, PROJECTED: 26915, UNIT: 9001}, (1, 1), ""),
        ({MODEL: 1, PROJECTED: 26915}, (1, 1), ""),
        ({PROJECTED: 2225}, (US_FOOT, US_FOOT), ""),
        ({MODEL: 1, PROJECTED: 2994, UNIT: 9002}, (FOOT, FOOT), ""),
        # Heights by the unit key, by the code of the vertical CRS, by its text.
        ({MODEL: 1, PROJECTED: 26915, UNIT: 9001, VERTICAL_UNIT: 9003}, (1, US_FOOT), ""),
        ({MODEL: 1, PROJECTED: 26915, VERTICAL: 6360}, (1, US_FOOT), ""),
        ({MODEL: 1, PROJECTED: 26915, VERTICAL: 8228}, (1, FOOT), ""),
        ({MODEL: 1, PROJECTED: 26915, VERTICAL: 5703, VERTICAL_UNIT: 9001}, (1, 1), ""),
        ({MODEL: 1, PROJECTED: 2225, VERTICAL: 5703}, (US_FOOT, 1), ""),
        ({MODEL: 1, PROJECTED: 2225, VERTICAL: 5103, VERTICAL_UNIT: 9001}, (US_FOOT, 1), ""),
        ({MODEL: 1, PROJECTED: 26915, VERTICAL: USER, VERTICAL_CITATION: "NAVD88 (Feet)"}, (1, FOOT), ""),
        ({MODEL: 1, PROJECTED: 26915, VERTICAL_CITATION: "NAVD88 height (ftUS)"}, (1, US_FOOT), ""),
        # Contradictions.
        ({MODEL: 1, PROJECTED: 26995, UNIT: 9003, VERTICAL_UNIT: 9003}, (US_FOOT, US_FOOT), "3076"),
        ({MODEL: 1, PROJECTED: 2225, UNIT: 9001}, (1, 1), "3076"),
        ({MODEL: 1, PROJECTED: 2225, UNIT: 9002}, (US_FOOT, US_FOOT), "3076"),
        ({MODEL: 1, PROJECTED: 26915, VERTICAL: 5703, VERTICAL_UNIT: 9003}, (1, US_FOOT), "4099"),
        ({MODEL: 1, PROJECTED: 26915, UNIT: 32632}, (1, 1), "32632"),
        # Projections without a code.
        ({MODEL: 1, GEODETIC: 4269, PROJECTED: USER, METHOD: 1, UNIT: 9003}, (US_FOOT, US_FOOT), "no code"),
        ({MODEL: 1, GEODETIC: 4269, UNIT: 9002}, (FOOT, FOOT), "no code"),
        ({PROJECTED: USER, METHOD: 8, UNIT: 9001, VERTICAL_UNIT: 9002}, (1, FOOT), "no code"),
        ({MODEL: 1, PROJECTED: USER, UNIT: USER, UNIT_METRES: 0.9144}, (0.9144, 0.9144), "no code"),
        ({MODEL: 1, PROJECTED: USER, CITATION: "Site grid (US survey feet)"}, (US_FOOT, US_FOOT), "no code"),
        ({MODEL: 1, PROJECTED: USER, CITATION: "Site grid"}, (1, 1), "metres are assumed"),
        ({MODEL: 1, PROJECTED: 29999, UNIT: 9002}, (FOOT, FOOT), "EPSG:29999"),
        ({MODEL: 1, PROJECTED: 4326, UNIT: 9001}, (1, 1), "counts in degrees"),
        ({MODEL: 1, PROJECTED: USER, PCS_CITATION: "NAD83 / Mississippi West (ftUS)"}, (US_FOOT,) * 2, "ftUS"),
        ({MODEL: 1, PROJECTED: USER, PCS_CITATION: f"ESRI PE String = {ESRI}"}, (US_FOOT, US_FOOT), "ftUS"),
        ({MODEL: 1, PROJECTED: USER, UNIT: USER, UNIT_METRES: 0.3048006}, (US_FOOT, US_FOOT), "US survey foot"),
        ({MODEL: 1, PROJECTED: USER, UNIT: USER, UNIT_METRES: 0.3048}, (FOOT, FOOT), "is the foot"),
        ({MODEL: 1, PROJECTED: USER, CITATION: "PCS Name = A|LUnits = US survey foot|"}, (US_FOOT,) * 2, "US"),
        ({MODEL: 1, PROJECTED: USER, CITATION: "PCS Name = A|LUnits = Meter|"}, (1, 1), "is the metre"),
        ({MODEL: 1, PROJECTED: USER, PCS_CITATION: "Custom grid (International Feet)"}, (FOOT, FOOT), "is the foot"),
        ({MODEL: 1, PROJECTED: USER, PCS_CITATION: "Columbus (feet)"}, (FOOT, FOOT), "is the foot"),
        ({MODEL: 1, PROJECTED: USER, PCS_CITATION: "NAD_1983_StatePlane_X_Feet"}, (US_FOOT,) * 2, "US survey"),
        ({MODEL: 1, PROJECTED: USER, PCS_CITATION: "NAD_1983_StatePlane_X_Feet_Intl"}, (FOOT,) * 2, "is the foot"),
        ({MODEL: 1, PROJECTED: USER, METHOD: 1, UNIT: 9096}, (0.9144, 0.9144), "yard"),
        # Lengths that cannot be.
        ({MODEL: 1, PROJECTED: 26915, UNIT: USER, UNIT_METRES: float("inf")}, (1, 1), "not possible"),
        ({MODEL: 1, PROJECTED: 26915, UNIT: USER, UNIT_METRES: float("nan")}, (1, 1), "not possible"),
        ({MODEL: 1, PROJECTED: USER, UNIT: USER, UNIT_METRES: 1e-300}, (1, 1), "not possible"),
        # The code under the key of the geographic CRS, and no key but the unit's.
        ({MODEL: 1, GEODETIC: 2225, UNIT: 9003}, (US_FOOT, US_FOOT), "belongs under key 3072"),
        ({GEODETIC: 26915}, (1, 1), "belongs under key 3072"),
        ({UNIT: 9003}, (US_FOOT, US_FOOT), "US survey foot"),
        # Heights alone.
        ({VERTICAL: 5703}, (1, 1), ""),
        ({VERTICAL_UNIT: 9003}, (1, US_FOOT), ""),
    ],
)  # fmt: skip
def test_metres_in_a_unit(
    keys: dict[int, int | float | str], expected: tuple[float, float], said: str
) -> None:
    crs, notes = crs_of_keys(keys, np.array([[5e5, 4e6, 0], [5.1e5, 4.1e6, 9]]))
    assert metres_per_unit(crs) == pytest.approx(expected, rel=1e-12)
    assert said in " ".join(notes) if said else not notes
    assert all(note.endswith(".") for note in notes)


@pytest.mark.parametrize(
    "keys",
    [
        {MODEL: 2, GEODETIC: 4326},
        {MODEL: 2, GEODETIC: USER},
        {GEODETIC: 4269},
        {MODEL: 2, GEODETIC: 4326, VERTICAL: 5703},
    ],
)
def test_degrees_are_degrees(keys: dict[int, int | float | str]) -> None:
    crs, _ = crs_of_keys(keys, np.array([[-93.1, 44.0, 0], [-93.0, 44.1, 9]]))
    with pytest.raises(ScanError, match="degrees"):
        metres_per_unit(crs)


def test_a_projection_is_never_degrees_unless_its_coordinates_are() -> None:
    keys = {MODEL: 1, PROJECTED: 4326}
    crs, _ = crs_of_keys(keys, np.array([[-93.1, 44.0, 0], [-93.0, 44.1, 9]]))
    with pytest.raises(ScanError, match="degrees"):
        metres_per_unit(crs)


def test_coordinates_decide_between_code_and_unit() -> None:
    # Mississippi West, 620 km east of its origin: in metres with a unit key that says feet, and the reverse.
    low = np.array([620_000.0, 380_000.0, 50.0])
    metres = np.array([low, low + 100])
    keys: dict[int, int | float | str] = {MODEL: 1, PROJECTED: 26995, UNIT: 9003}
    crs, notes = crs_of_keys(keys, metres)
    assert metres_per_unit(crs) == (1, 1)
    assert "lie" in notes[0]
    crs, notes = crs_of_keys(keys, metres / US_FOOT)
    assert metres_per_unit(crs) == pytest.approx((US_FOOT, US_FOOT))
    assert crs is not None
    assert is_same_ground(crs, CRS("EPSG:2255"))


def test_the_same_projection_parameters_are_one_local_crs() -> None:
    keys: dict[int, int | float | str] = {MODEL: 1, PROJECTED: USER, UNIT: 9003, METHOD: 1, 3080: -93.0}
    one, other, third = (crs_of_keys({**keys, 3082: east})[0] for east in (0.0, 0.0, 5e5))
    assert one is not None
    assert other is not None
    assert third is not None
    assert is_local(one)
    assert is_same_ground(one, other)
    assert not is_same_ground(one, third)


def test_nothing_but_a_model_is_no_crs() -> None:
    assert crs_of_keys({MODEL: 1})[0] is None
    assert crs_of_keys({})[0] is None


def test_records_as_they_are_stored() -> None:
    keys: dict[int, int | float | str] = {MODEL: 1, CITATION: "a grid", PROJECTED: 2154, UNIT_METRES: 0.5}
    records = {record.record_id: record.record_data for record in geo_key_records(keys)}
    assert parse_keys(*(records[n] for n in (34735, 34736, 34737))) == keys
    assert parse_keys(records[34735]) == {MODEL: 1, PROJECTED: 2154}


@given(st.binary(max_size=120), st.binary(max_size=24), st.binary(max_size=24))
def test_damaged_records_are_read_as_far_as_they_go(directory: bytes, doubles: bytes, texts: bytes) -> None:
    keys = parse_keys(directory, doubles, texts)
    crs, _ = crs_of_keys(keys)
    assert crs is None or isinstance(crs, CRS)


@given(
    st.dictionaries(
        st.sampled_from(
            [MODEL, GEODETIC, PROJECTED, UNIT, UNIT_METRES, VERTICAL, VERTICAL_UNIT, CITATION, 3080]
        ),
        st.sampled_from([0, 1, 2, 3, 4326, 4979, 4978, 2154, 5703, 9001, 9003, USER, 65535, 0.5, -1.0, "feet", ""]),
    )
)  # fmt: skip
def test_keys_in_any_combination(keys: dict[int, int | float | str]) -> None:
    crs, notes = crs_of_keys(keys)
    assert crs is None or isinstance(crs, CRS)
    assert all(note.endswith(".") for note in notes)
