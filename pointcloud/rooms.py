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

import io
import logging
import warnings

import numpy as np

from pointcloud import storage
from pointcloud.cloud import Cloud
from pointcloud.errors import ScanError, StorageError
from pointcloud.labels import PRESETS

_ANNOTATIONS = "Annotations"
_EXPECTED = "expected an S3DIS room with Annotations/<class>_<n>.txt (x y z r g b per line)"
_LOG = logging.getLogger(__name__)
_CLASSES = {name: index for index, name in enumerate(PRESETS["s3dis"].names)}
_CLUTTER = _CLASSES["clutter"]
_LOGGED_LINES = 10  # per file: a file that is no S3DIS file at all must not fill the log


def is_room(uri: str) -> bool:
    """Whether a folder looks like an S3DIS room: it has a folder `Annotations`."""
    return storage.exists(storage.join(uri, _ANNOTATIONS))


def object_files(uri: str) -> list[storage.Source]:
    """The files of a room's objects, by name.

    Raises:
        ScanError: no such folder, no Annotations in it, or no file in those.
    """
    annotations = storage.join(uri, _ANNOTATIONS)
    if not storage.exists(annotations):
        what = f"has no folder {_ANNOTATIONS}" if storage.exists(uri) else "does not exist"
        raise ScanError(f"{uri!r} {what}, {_EXPECTED}; give the room's own folder.")
    try:
        return storage.expand([annotations], (".txt",))
    except StorageError as error:
        raise ScanError(f"{annotations!r} holds no .txt file, {_EXPECTED}; copy the room again.") from error


def read_room(uri: str) -> Cloud:
    """All points of one S3DIS room, object by object in the order of their files' names.

    Args:
        uri: the room's folder, the one that holds `Annotations`.

    Returns:
        A cloud without CRS: xyz in metres, red, green and blue as uint16 (0–255 times 257, as the LAS
        specification asks for), classification uint8 as class index in the scheme "s3dis".

    Raises:
        ScanError: no such folder, no Annotations, no file or no readable point in it.
        StorageError: a file that cannot be opened.
    """
    return read_room_counted(uri)[0]


def read_room_counted(uri: str) -> tuple[Cloud, int]:
    """As `read_room`, with the number of malformed lines that were skipped."""
    files = object_files(uri)
    rows, codes, skipped = [], [], 0
    for file in files:
        points, bad = _read_object(file.uri)
        rows.append(points)
        codes.append(np.full(len(points), _class_of(file.uri), np.uint8))
        skipped += bad
    points = np.concatenate(rows)
    if not len(points):
        raise ScanError(f"{uri!r} holds no readable point in {len(files)} files, {_EXPECTED}; copy it again.")
    colours = np.rint(points[:, 3:]).astype(np.uint16) * 257
    attributes = {
        name: np.ascontiguousarray(colours[:, i]) for i, name in enumerate(("red", "green", "blue"))
    }
    attributes["classification"] = np.concatenate(codes)
    return Cloud(np.ascontiguousarray(points[:, :3]), attributes), skipped


def _class_of(uri: str) -> int:
    name = storage.name_of(uri).split("_")[0].removesuffix(".txt").lower()
    if name not in _CLASSES:
        _LOG.info("%s: %r is not one of the 13 classes, read as clutter", uri, name)
    return _CLASSES.get(name, _CLUTTER)


def _read_object(uri: str) -> tuple[np.ndarray, int]:
    """Good rows (n, 6) float64 of one file, and the number of malformed lines."""
    content = storage.read_bytes(uri)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty file, which is good here
            # latin-1 decodes every byte, so a stray one fails as a number and not as text.
            points = np.loadtxt(io.BytesIO(content), comments=None, ndmin=2, encoding="latin-1")
        if points.size == 0:
            return np.empty((0, 6)), 0
        if points.shape[1] == 6 and _good(points).all():
            return points, 0
    except ValueError:
        pass  # some line is malformed; which one is found below
    return _read_line_by_line(uri, content)


def _read_line_by_line(uri: str, content: bytes) -> tuple[np.ndarray, int]:
    rows: list[list[float]] = []
    bad = 0
    for number, line in enumerate(content.splitlines(), start=1):
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
            _LOG.warning("%s, line %d: malformed, skipped: %r", uri, number, line[:80])
    if bad > _LOGGED_LINES:
        _LOG.warning("%s: %d malformed lines skipped in all", uri, bad)
    return np.array(rows, np.float64).reshape(-1, 6), bad


def _good(points: np.ndarray) -> np.ndarray:
    """(n,) bool: finite coordinates and colours from 0 to 255, of rows (n, 6)."""
    colours = points[:, 3:]
    return np.isfinite(points).all(axis=1) & (colours >= 0).all(axis=1) & (colours <= 255).all(axis=1)
