"""Reading S3DIS room folders (Stanford 3D Indoor Spaces: Armeni et al., CVPR 2016).

A room is a folder `Area_N/room_M` with `Annotations/<class>_<n>.txt`, one file per object and one point per
line: x y z in metres and red green blue from 0 to 255. Three defects of the published files are known, and
this is what happens to them:

- A malformed line (Area_3/hallway_2, Area_5/hallway_6): the line is skipped, counted and logged.
- A misnamed file (Area_6/copyRoom_1 holds `copy_Room_1.txt`): of no effect, because the room's own file is
  never read. It repeats the points of `Annotations`, and without their classes.
- Objects outside the 13 classes (`stairs`): they become clutter, as in the published evaluations.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np

from pointcloud.cloud import Cloud
from pointcloud.errors import ScanError
from pointcloud.labels import PRESETS

_LOG = logging.getLogger(__name__)
_CLASSES = {name: index for index, name in enumerate(PRESETS["s3dis"].names)}
_CLUTTER = _CLASSES["clutter"]
_LOGGED_LINES = 10  # per file: a file that is no S3DIS file at all must not fill the log


def is_room(folder: Path) -> bool:
    """Whether the folder looks like an S3DIS room: it has a folder `Annotations`."""
    return (Path(folder) / "Annotations").is_dir()


def read_room(folder: Path) -> Cloud:
    """All points of one S3DIS room, object by object in the order of their files' names.

    Args:
        folder: the room's folder, the one that holds `Annotations`.

    Returns:
        A cloud without CRS: xyz in metres, red, green and blue as uint16 (0–255 times 257, as the LAS
        specification asks for), classification uint8 as class index in the scheme "s3dis".

    Raises:
        ScanError: no such folder, no Annotations, no file or no readable point in it, a file that cannot be
            opened.
    """
    return read_room_counted(folder)[0]


def read_room_counted(folder: Path) -> tuple[Cloud, int]:
    """As `read_room`, with the number of malformed lines that were skipped."""
    folder = Path(folder)
    annotations = folder / "Annotations"
    expected = "expected an S3DIS room with Annotations/<class>_<n>.txt (x y z r g b per line)"
    if not annotations.is_dir():
        what = "has no folder Annotations" if folder.is_dir() else "is not a folder"
        raise ScanError(f"{folder} {what}, {expected}; give the room's own folder.")
    # Names that begin with a dot are what macOS leaves beside the files it copies.
    paths = sorted(p for p in annotations.glob("*.txt") if not p.name.startswith("."))
    if not paths:
        raise ScanError(f"{annotations} holds no .txt file, {expected}; copy the room again.")
    rows, codes, skipped = [], [], 0
    for path in paths:
        points, bad = _read_object(path)
        rows.append(points)
        codes.append(np.full(len(points), _class_of(path), np.uint8))
        skipped += bad
    points = np.concatenate(rows)
    if not len(points):
        raise ScanError(
            f"{annotations} holds no readable point in {len(paths)} files, {expected}; copy it again."
        )
    colours = np.rint(points[:, 3:]).astype(np.uint16) * 257
    attributes = {
        name: np.ascontiguousarray(colours[:, i]) for i, name in enumerate(("red", "green", "blue"))
    }
    attributes["classification"] = np.concatenate(codes)
    return Cloud(np.ascontiguousarray(points[:, :3]), attributes), skipped


def _class_of(path: Path) -> int:
    name = path.stem.split("_")[0].lower()
    if name not in _CLASSES:
        _LOG.info("%s: %r is not one of the 13 classes, read as clutter", path, name)
    return _CLASSES.get(name, _CLUTTER)


def _read_object(path: Path) -> tuple[np.ndarray, int]:
    """Good rows (n, 6) float64 of one file, and the number of malformed lines."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty file, which is good here
            # latin-1 decodes every byte, so a stray one fails as a number and not as text.
            points = np.loadtxt(path, comments=None, ndmin=2, encoding="latin-1")
        if points.size == 0:
            return np.empty((0, 6)), 0
        if points.shape[1] == 6 and _good(points).all():
            return points, 0
    except ValueError:
        pass  # some line is malformed; which one is found below
    except OSError as error:
        raise ScanError(
            f"{path} cannot be read ({error.strerror}); check the file and its rights."
        ) from error
    return _read_line_by_line(path)


def _read_line_by_line(path: Path) -> tuple[np.ndarray, int]:
    rows: list[list[float]] = []
    bad = 0
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            # float() allows 1_000, which no instrument writes.
            row = [float(field) for field in fields] if b"_" not in line else []
        except ValueError:
            row = []
        if len(row) == 6 and _good(np.array([row])).all():
            rows.append(row)
            continue
        bad += 1
        if bad <= _LOGGED_LINES:
            _LOG.warning("%s, line %d: malformed, skipped: %r", path, number, line[:80])
    if bad > _LOGGED_LINES:
        _LOG.warning("%s: %d malformed lines skipped in all", path, bad)
    return np.array(rows, np.float64).reshape(-1, 6), bad


def _good(points: np.ndarray) -> np.ndarray:
    """(n,) bool: finite coordinates and colours from 0 to 255, of rows (n, 6)."""
    colours = points[:, 3:]
    return np.isfinite(points).all(axis=1) & (colours >= 0).all(axis=1) & (colours <= 255).all(axis=1)
