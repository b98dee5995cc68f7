"""Simulated rooms in the folder format of S3DIS. SIMULATED data, with exact labels.

Every room has the shell (ceiling, floor, walls with doors and windows) and the furniture of its kind; the
first office of every area has all 13 classes of S3DIS, so that even one room makes a complete small data set.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointcloud.errors import PointloomError, StorageError
from pointcloud.simulate import draws
from pointcloud.simulate.furniture import Scanner

NOTICE = "SIMULATED.txt"
"""File in every simulated room that says so; only folders that hold it are ever replaced."""

KINDS = ("office", "conferenceRoom", "hallway")
_SIZES = {"office": (5.0, 4.2), "conferenceRoom": (7.0, 5.0), "hallway": (12.0, 2.4)}
_HEIGHT_M = 2.9
_DOOR_M, _WINDOW_M = (0.95, 2.1), (1.4, 1.3)
_AREA_SPACING_M, _ROOM_SPACING_M = 100.0, 15.0

_WALL, _CEILING, _FLOOR = (206.0, 200.0, 186.0), (228.0, 228.0, 224.0), (122.0, 112.0, 104.0)
_DOOR, _WINDOW, _BOARD = (134.0, 92.0, 58.0), (168.0, 196.0, 214.0), (238.0, 240.0, 240.0)

Objects = list[tuple[str, np.ndarray]]
"""Class name and points (n, 6) x y z r g b of every object of a room."""


@dataclass(frozen=True)
class RoomsConfig:
    """What to simulate.

    Attributes:
        seed: of everything; 0 or more.
        areas: numbers of the areas, as in Area_1.
        rooms_per_area: kinds take turns: office_1, conferenceRoom_1, hallway_1, office_2 …
        points_per_m2: points per square metre of surface. S3DIS itself has some thousands.

    Raises:
        PointloomError: a setting out of its range.
    """

    seed: int = 0
    areas: tuple[int, ...] = (1, 2, 5)
    rooms_per_area: int = 3
    points_per_m2: float = 250.0

    def __post_init__(self) -> None:
        checks = (
            (0 <= self.seed < 2**32, "seed", self.seed, "a whole number from 0 to 2**32 - 1"),
            (bool(self.areas) and min(self.areas) >= 1, "areas", self.areas, "at least one, counted from 1"),
            (len(set(self.areas)) == len(self.areas), "areas", self.areas, "every area once"),
            (self.rooms_per_area >= 1, "rooms_per_area", self.rooms_per_area, "at least 1"),
            (
                0 < self.points_per_m2 <= 1e5,
                "points_per_m2",
                self.points_per_m2,
                "more than 0, at most 100000",
            ),
        )
        for good, name, value, expected in checks:
            if not good:
                raise PointloomError(f"simulated rooms: {name} is {value!r}, expected {expected}; change it.")


def simulate_room(config: RoomsConfig, area: int, number: int) -> tuple[str, Objects]:
    """Name (say office_1) and objects of room `number` (from 0) of an area, in the area's coordinates."""
    kind = KINDS[number % len(KINDS)]
    rng = draws.generator(config.seed, 6, area, number)
    scanner = Scanner(rng, config.points_per_m2)
    width, depth = (side * rng.uniform(0.95, 1.15) for side in _SIZES[kind])
    objects = _shell(scanner, width, depth, kind) + _fittings(scanner, width, depth, complete=number == 0)
    objects += {"office": _office, "conferenceRoom": _conference_room, "hallway": _hallway}[kind](
        scanner, width, depth
    )
    shift = np.array([number * _ROOM_SPACING_M - 20.0, area * _AREA_SPACING_M, 0.0, 0.0, 0.0, 0.0])
    return f"{kind}_{number // len(KINDS) + 1}", [(name, points + shift) for name, points in objects]


def write_rooms(config: RoomsConfig, folder: Path) -> list[Path]:
    """Write all rooms as S3DIS does: Area_N/room_M/Annotations/<class>_<n>.txt and Area_N/room_M/room_M.txt.

    The same config writes the same bytes. A room appears under its name only when it is whole; a simulated
    room that is there already is replaced.

    Returns:
        The rooms' folders, area by area.

    Raises:
        StorageError: the folder cannot be written to, or a folder of a room's name is there that is not a
            simulated room.
    """
    return [
        _write_room(config, area, number, Path(folder))
        for area in config.areas
        for number in range(config.rooms_per_area)
    ]


def _write_room(config: RoomsConfig, area: int, number: int, folder: Path) -> Path:
    name, objects = simulate_room(config, area, number)
    path = folder / f"Area_{area}" / name
    partial = path.with_name(f".{name}.{os.getpid()}.part")
    if path.exists() and not (path / NOTICE).exists():
        raise StorageError(
            f"{path} exists and is not a simulated room; choose another folder or move it away."
        )
    try:
        (partial / "Annotations").mkdir(parents=True)
        counts: dict[str, int] = {}
        for class_name, points in objects:
            counts[class_name] = counts.get(class_name, 0) + 1
            _save(partial / "Annotations" / f"{class_name}_{counts[class_name]}.txt", points)
        _save(partial / f"{name}.txt", np.vstack([points for _, points in objects]))
        (partial / NOTICE).write_text(
            f"Simulated by Pointloom, not measured: {config!r}.\n", encoding="utf-8"
        )
        if path.exists():
            shutil.rmtree(path)
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(
            f"simulated rooms: cannot write {path} ({error.strerror}); choose a folder that you can write to."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return path


def _save(path: Path, points: np.ndarray) -> None:
    np.savetxt(path, points, fmt="%.3f %.3f %.3f %d %d %d")


def _shell(scanner: Scanner, width: float, depth: float, kind: str) -> Objects:
    """Ceiling, floor, four walls, and the doors and windows in them. The room is [0, width] × [0, depth]."""
    doors = [1.0] if kind != "hallway" else [1.5, 5.5, 9.5]
    windows = [0.5 * width - 1.8, 0.5 * width + 0.4] if kind != "hallway" else [0.5 * width]
    (door_w, door_h), (window_w, window_h) = _DOOR_M, _WINDOW_M
    sill = 0.9
    objects: Objects = [
        ("ceiling", scanner.patch((0, 0, _HEIGHT_M), (width, 0, 0), (0, depth, 0), _CEILING)),
        ("floor", scanner.patch((0, 0, 0), (width, 0, 0), (0, depth, 0), _FLOOR)),
    ]
    up = (0.0, 0.0, _HEIGHT_M)
    openings = tuple((x, 0.0, x + door_w, door_h) for x in doors)
    objects.append(("wall", scanner.patch((0, 0, 0), (width, 0, 0), up, _WALL, openings)))
    openings = tuple((x, sill, x + window_w, sill + window_h) for x in windows)
    objects.append(("wall", scanner.patch((0, depth, 0), (width, 0, 0), up, _WALL, openings)))
    for x in (0.0, width):
        objects.append(("wall", scanner.patch((x, 0, 0), (0, depth, 0), up, _WALL)))
    # Doors and panes stand a little behind the wall's face, as they do.
    for x in doors:
        objects.append(("door", scanner.patch((x, -0.06, 0), (door_w, 0, 0), (0, 0, door_h), _DOOR)))
    for x in windows:
        pane = scanner.patch((x, depth + 0.08, sill), (window_w, 0, 0), (0, 0, window_h), _WINDOW)
        objects.append(("window", pane))
    return objects


def _fittings(scanner: Scanner, width: float, depth: float, complete: bool) -> Objects:
    """Beam, column, board, sofa and bookcase; by chance, or all of them where `complete`."""
    has = scanner.rng.random(5) < (1.1 if complete else 0.5)
    objects: Objects = []
    if has[0]:
        beam = scanner.box((0.4 * width, depth / 2, _HEIGHT_M - 0.15), (0.25, depth, 0.28), _WALL)
        objects.append(("beam", beam))
    if has[1]:
        place = (width - 0.2, depth - 0.2, _HEIGHT_M / 2)
        objects.append(("column", scanner.box(place, (0.36, 0.36, _HEIGHT_M), (186, 180, 170))))
    if has[2]:
        at = (width - 0.03, 0.25 * depth, 0.9)
        objects.append(("board", scanner.patch(at, (0, 0.4 * depth, 0), (0, 0, 1.2), _BOARD)))
    if has[3]:
        objects.append(("sofa", scanner.sofa((0.5, depth / 2), -np.pi / 2)))
    if has[4]:
        objects.append(("bookcase", scanner.bookcase((width - 0.75, 0.2))))
    return objects


def _office(scanner: Scanner, width: float, depth: float) -> Objects:
    """Desks under the windows, each with a chair and a screen, and a bin."""
    objects: Objects = []
    for x in (0.36 * width, 0.72 * width):
        turn = float(scanner.rng.uniform(-0.4, 0.4))
        objects += [
            ("table", scanner.table((x, depth - 0.5), (1.4, 0.75))),
            ("chair", scanner.chair((x, depth - 1.25), turn)),
            ("clutter", scanner.screen((x, depth - 0.35), np.pi)),
        ]
    objects.append(("clutter", scanner.box((0.3, 0.3, 0.17), (0.28, 0.28, 0.34), (70, 76, 82))))
    return objects


def _conference_room(scanner: Scanner, width: float, depth: float) -> Objects:
    """One long table with chairs along both sides, and papers on it."""
    centre = (0.5 * width + 0.3, 0.5 * depth)
    objects: Objects = [("table", scanner.table(centre, (3.4, 1.3)))]
    for x in np.linspace(-1.2, 1.2, 4):
        for side, turn in ((-0.95, 0.0), (0.95, np.pi)):
            place = (centre[0] + float(x), centre[1] + side)
            objects.append(("chair", scanner.chair(place, turn + float(scanner.rng.uniform(-0.3, 0.3)))))
    for _ in range(3):
        x, y = scanner.rng.uniform(-1.4, 1.4), scanner.rng.uniform(-0.5, 0.5)
        sheet = (centre[0] + float(x), centre[1] + float(y), 0.75)
        objects.append(("clutter", scanner.box(sheet, (0.3, 0.21, 0.02), (236, 234, 228), float(x))))
    return objects


def _hallway(scanner: Scanner, width: float, depth: float) -> Objects:
    """Nearly empty: a waste bin and an extinguisher."""
    return [
        ("clutter", scanner.box((0.4 * width, 0.3, 0.3), (0.35, 0.35, 0.6), (80, 96, 88))),
        ("clutter", scanner.box((0.8 * width, depth - 0.12, 0.9), (0.16, 0.16, 0.5), (176, 34, 32))),
    ]
