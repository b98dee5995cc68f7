"""`python -m pointcloud.simulate survey|rooms --out DIR`: write simulated data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pointcloud.errors import PointloomError
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.rooms import RoomsConfig, write_rooms
from pointcloud.simulate.survey import SurveyConfig


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pointcloud.simulate",
        description="Write SIMULATED scans with exact labels. They are made up, not measured: good to try "
        "and time Pointloom, not to judge how well a network does on real scans.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    survey = kinds.add_parser(
        "survey",
        help="airborne LiDAR as LAZ tiles",
        description="Write simulated airborne LiDAR: LAS 1.4 format 6, ASPRS classes 2 to 6, 9, 14, 15.",
        formatter_class=parser.formatter_class,
    )
    rooms = kinds.add_parser(
        "rooms",
        help="indoor scans as S3DIS folders",
        description="Write simulated rooms: Area_N/room_M/Annotations/<class>_<n>.txt, 13 classes.",
        formatter_class=parser.formatter_class,
    )
    plan, plain = SurveyConfig(), RoomsConfig()
    for sub in (survey, rooms):
        sub.add_argument("--out", type=Path, required=True, help="folder to write to")
        sub.add_argument("--seed", type=int, default=0, help="the same seed makes the same bytes")
    survey.add_argument(
        "--tiles", type=int, nargs=2, default=plan.tiles, metavar=("EAST", "NORTH"), help="how many"
    )
    survey.add_argument("--tile-size-m", type=float, default=plan.tile_size_m, help="side of a tile")
    survey.add_argument(
        "--points-per-m2", type=float, default=plan.points_per_m2, help="pulses per m² of ground"
    )
    survey.add_argument("--epsg", type=int, default=plan.epsg, help="a projected CRS in metres")
    survey.add_argument(
        "--origin",
        type=float,
        nargs=2,
        default=plan.origin,
        metavar=("EASTING", "NORTHING"),
        help="corner, metres",
    )
    survey.add_argument("--noise-fraction", type=float, default=plan.noise_fraction, help="classes 7 and 18")
    survey.add_argument("--suffix", choices=(".laz", ".las"), default=".laz", help="compressed or not")
    rooms.add_argument("--areas", type=int, nargs="+", default=plain.areas, help="numbers of the areas")
    rooms.add_argument("--rooms-per-area", type=int, default=plain.rooms_per_area, help="how many")
    rooms.add_argument("--points-per-m2", type=float, default=plain.points_per_m2, help="of surface")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status. Bad settings are said in one sentence, status 2."""
    a = _parser().parse_args(arguments)
    try:
        if a.kind == "survey":
            config = SurveyConfig(
                seed=a.seed,
                tile_size_m=a.tile_size_m,
                tiles=tuple(a.tiles),
                points_per_m2=a.points_per_m2,
                origin=tuple(a.origin),
                epsg=a.epsg,
                noise_fraction=a.noise_fraction,
            )
            paths = write_survey(config, a.out, a.suffix)
        else:
            rooms = RoomsConfig(a.seed, tuple(a.areas), a.rooms_per_area, a.points_per_m2)
            paths = write_rooms(rooms, a.out)
    except PointloomError as error:
        print(error, file=sys.stderr)
        return 2
    for path in paths:
        print(path)
    print(
        f"Simulated data, not measured: {len(paths)} {'tiles' if a.kind == 'survey' else 'rooms'} in {a.out}."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
