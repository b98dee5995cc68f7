"""Two scans of one survey, and the second as it comes out when somebody writes a wrong unit into its CRS."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np
from pyproj import CRS

from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig

FOOT_M = 0.3048
METRES = CRS(2154)
FEET = CRS.from_string(
    "+proj=lcc +lat_0=46.5 +lon_0=3 +lat_1=49 +lat_2=44 +x_0=0 +y_0=0 +ellps=GRS80 +units=ft"
)
WRONG: dict[str, tuple[tuple[float, float], CRS]] = {
    "feet taken for metres": ((1 / FOOT_M, 1 / FOOT_M), METRES),
    "metres taken for feet": ((1.0, 1.0), FEET),
    "feet taken for metres in heights alone": ((1.0, 1 / FOOT_M), METRES),
}
"""What happened -> what metres along the ground and upwards are multiplied with, and the CRS that is written."""


def simulated(folder: Path) -> tuple[Path, Path]:
    """Neighbouring tiles of 60 m, 12 points per m²."""
    config = SurveyConfig(seed=3, tiles=(2, 1), tile_size_m=60.0, points_per_m2=12.0)
    first, second = write_survey(config, folder, ".las")
    return first, second


def miswritten(scan: Path, out: Path, wrong: str) -> Path:
    """A copy of a scan in metres with a unit that is wrong in the way named."""
    (along, upwards), crs = WRONG[wrong]
    cloud = laspy.read(scan)
    header = laspy.LasHeader(point_format=6, version="1.4")
    header.offsets, header.scales = np.array(cloud.header.mins) * (along, along, upwards), [0.001] * 3
    header.add_crs(crs)
    copy = laspy.LasData(header)
    copy.x, copy.y, copy.z = (
        np.asarray(axis) * factor for axis, factor in zip(cloud.xyz.T, (along, along, upwards), strict=True)
    )
    for name in ("intensity", "return_number", "number_of_returns", "classification"):
        copy[name] = cloud[name]
    out.parent.mkdir(parents=True, exist_ok=True)
    copy.write(out)
    return out
