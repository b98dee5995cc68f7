"""One CRS in other words is one; what lies side by side and is kept apart is named."""

from __future__ import annotations

import numpy as np
import pytest
from pyproj import CRS

from pointcloud.blocks.common_crs import adopt_crs, find_common, kept_apart, with_crs
from pointcloud.blocks.neighbours import find_neighbours, reading_order
from pointcloud.cloud import ScanHeader
from pointcloud.crs import METRE, local_crs, metres_per_unit, parse_unit, with_units
from pointcloud.grid.block_config import BlockConfig

CONFIG = BlockConfig(tile_size_m=16.0, halo_m=2.0, voxel_size_m=0.5)
UTM = CRS("EPSG:26915")
FEET = CRS("EPSG:2225")
ESRI_FEET = FEET.to_wkt("WKT1_ESRI")


def header(
    scan: str, crs: CRS | str | None, column: float = 0, row: float = 0, size: float = 100
) -> ScanHeader:
    """A square scan in a column and row of a survey; size in CRS units."""
    low = np.array([5e5 + column * size, 4e6 + row * size, 50.0])
    bounds = np.array([low, low + np.array([size, size, 20])])
    return ScanHeader(scan, "LAS", 10, bounds, CRS(crs) if crs is not None else None, (), np.full(3, 0.01))


def row_of(*crs: CRS | str | None) -> dict[str, ScanHeader]:
    return {f"{n}.las": header(f"{n}.las", one, column=n) for n, one in enumerate(crs)}


WORDS = [
    UTM,
    UTM.to_wkt("WKT1_GDAL"),
    UTM.to_wkt("WKT1_ESRI"),
    UTM.to_wkt("WKT2_2019"),
    "+proj=utm +zone=15 +datum=NAD83 +units=m +towgs84=0,0,0 +type=crs",
    "EPSG:26915+5703",
]


@pytest.mark.parametrize("words", WORDS)
def test_other_words_are_neighbours(words: CRS | str) -> None:
    headers = row_of(UTM, words, UTM)
    assert len(find_common(headers)) == 1
    assert find_neighbours(headers, CONFIG) == {
        "0.las": ["1.las"], "1.las": ["0.las", "2.las"], "2.las": ["1.las"],
    }  # fmt: skip
    assert reading_order(headers) == ["0.las", "1.las", "2.las"]
    assert adopt_crs(headers, CONFIG) == ({}, [])
    assert kept_apart(headers, CONFIG) == ""


def test_all_words_together() -> None:
    headers = row_of(*WORDS)
    assert len(find_common(headers)) == 1
    assert all(find_neighbours(headers, CONFIG).values())


def test_a_unit_with_other_digits_is_read_as_one() -> None:
    rounded = CRS(ESRI_FEET.replace("0.304800609601219", "0.30480061"))
    headers = row_of(FEET, rounded, "EPSG:2225+6360")
    assert metres_per_unit(headers["0.las"].crs) != metres_per_unit(headers["1.las"].crs)
    adopted, said = adopt_crs(headers, CONFIG)
    assert said == []
    agreed = with_crs(headers, adopted)
    assert len({metres_per_unit(one.crs) for one in agreed.values()}) == 1
    assert len(find_common(agreed)) == 1


@pytest.mark.parametrize(
    "other",
    ["EPSG:32615", "EPSG:6344", "EPSG:26915+6360", FEET, local_crs("site", METRE), with_units(UTM, parse_unit("ft"))],
)  # fmt: skip
def test_scans_that_are_kept_apart_are_named(other: CRS | str) -> None:
    headers = row_of(UTM, other)
    assert find_neighbours(headers, CONFIG) == {"0.las": [], "1.las": []}
    said = kept_apart(headers, CONFIG)
    near = CRS(other).geodetic_crs is None or "15N" in CRS(other).name
    if near and "(foot)" not in CRS(other).name:
        assert "'0.las' (NAD83 / UTM zone 15N)" in said
        assert "'1.las'" in said
        assert said.count(".") >= 1
        assert "\n" not in said
    else:
        assert said == ""


def test_two_zones_that_meet_are_named_and_two_that_do_not_are_not() -> None:
    # The same ground at 90° W, where zones 15 and 16 meet, and the same numbers a zone apart.
    west, east = (
        ScanHeader(scan, "LAS", 9, np.array([[x, 4.4043e6, 0], [x + 500, 4.4048e6, 9.0]]), CRS(crs), (), None)
        for scan, x, crs in (("w", 756_500.0, UTM), ("e", 243_000.0, "EPSG:26916"))
    )
    far = ScanHeader("f", "LAS", 9, west.bounds, CRS("EPSG:26917"), (), None)
    assert "'w'" in kept_apart({"w": west, "e": east}, CONFIG)
    assert kept_apart({"w": west, "f": far}, CONFIG) == ""


def test_several_vertical_systems_stay_apart() -> None:
    headers = row_of("EPSG:26915+5703", UTM, "EPSG:26915+5773")
    assert sorted(common.scans for common in find_common(headers)) == [("0.las",), ("1.las",), ("2.las",)]
    assert "NAVD88" in kept_apart(headers, CONFIG)


def test_a_scan_without_crs_is_taken_for_that_of_the_scans_beside_it() -> None:
    headers = row_of(UTM, None, None)
    adopted, said = adopt_crs(headers, CONFIG)
    assert adopted == {"1.las": UTM, "2.las": UTM}
    assert len(said) == 1
    assert "'1.las', '2.las'" in said[0]
    assert "NAD83 / UTM zone 15N" in said[0]
    agreed = with_crs(headers, adopted)
    assert find_neighbours(agreed, CONFIG)["1.las"] == ["0.las", "2.las"]


def test_a_scan_without_crs_elsewhere_or_between_two_stays_as_it_is() -> None:
    headers = row_of(UTM, None)
    headers["1.las"] = header("1.las", None, column=50)
    assert adopt_crs(headers, CONFIG) == ({}, [])
    between = row_of(UTM, None, "EPSG:32615")
    assert adopt_crs(between, CONFIG) == ({}, [])
    assert "'1.las' (no CRS, metres assumed)" in kept_apart(between, CONFIG)


def test_without_any_crs_all_are_neighbours() -> None:
    headers = row_of(None, None)
    assert adopt_crs(headers, CONFIG) == ({}, [])
    assert find_neighbours(headers, CONFIG) == {"0.las": ["1.las"], "1.las": ["0.las"]}


def test_degrees_and_scans_without_bounds_are_nobodys_neighbours() -> None:
    headers = row_of("EPSG:4326", "EPSG:4326", UTM)
    headers["3.ply"] = ScanHeader("3.ply", "PLY", 9, None, None, (), None)
    assert not any(find_neighbours(headers, CONFIG).values())
    assert adopt_crs(headers, CONFIG) == ({}, [])
    assert sorted(reading_order(headers)) == sorted(headers)


def test_nothing_is_said_where_scans_are_not_to_be_neighbours() -> None:
    alone = BlockConfig(tile_size_m=16.0, halo_m=2.0, voxel_size_m=0.5, across_scans=False)
    assert kept_apart(row_of(UTM, "EPSG:32615"), alone) == ""
