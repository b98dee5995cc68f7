"""Reading S3DIS room folders (Stanford 3D Indoor Spaces: Armeni et al., CVPR 2016).

A room is a folder `Area_N/room_M` with `Annotations/<class>_<n>.txt`, one file per object and one point per
line: x y z in metres and red green blue from 0 to 255. Three defects of the published files are known, and
this is what happens to them:

- A malformed line (Area_3/hallway_2, Area_5/hallway_6): the line is skipped, counted and reported.
- A misnamed file (Area_6/copyRoom_1 holds `copy_Room_1.txt`): reported, and of no effect, because the room's
  own file is never read. It repeats the points of `Annotations`, and without their classes.
- Objects outside the 13 classes (`stairs`): they become clutter, as in the published evaluations.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator

import numpy as np

from pointcloud.cloud import CHUNK_POINTS, Columns, ScanHeader
from pointcloud.errors import ScanError, StorageError
from pointcloud.labels import PRESETS
from pointcloud.storage import files as storage
from pointcloud.storage import inputs

_ANNOTATIONS = "Annotations"
_EXPECTED = "expected an S3DIS room with Annotations/<class>_<n>.txt (x y z r g b per line)"
_CLASSES = {name: index for index, name in enumerate(PRESETS["s3dis"].names)}
_CLUTTER = _CLASSES["clutter"]
_REPORTED_LINES = 10  # per file: a file of another kind must not fill the report


def is_room(uri: str) -> bool:
    """Whether a folder looks like an S3DIS room: it has a folder `Annotations`."""
    # Nothing lies below a glob, and an error would name a place that the user did not give.
    return not inputs.is_glob(uri) and storage.exists(storage.join(uri, _ANNOTATIONS))


def find_rooms(uri: str) -> list[inputs.Source]:
    """The rooms that a folder is or holds, sorted, named as below the folder ("Area_5/office_1"); else none."""
    if inputs.is_glob(uri):
        return []
    if is_room(uri):
        return [inputs.source_of(uri, storage.name_of(uri))]
    files = storage.list_files(uri) if storage.is_folder(uri) else []
    names = sorted({file.name.rpartition(f"/{_ANNOTATIONS}/")[0] for file in files} - {""})
    return [inputs.source_of(storage.join(uri, *name.split("/")), name) for name in names]


def object_files(uri: str) -> list[inputs.Source]:
    """The files of a room's objects, by name.

    Raises:
        ScanError: no such folder, no Annotations in it, or no file in those.
    """
    annotations = storage.join(uri, _ANNOTATIONS)
    if not storage.exists(annotations):
        what = f"has no folder {_ANNOTATIONS}" if storage.exists(uri) else "does not exist"
        raise ScanError(f"{uri!r} {what}, {_EXPECTED}; give the room's own folder.")
    try:
        objects = inputs.expand([annotations], (".txt",))
    except StorageError as error:
        raise ScanError(f"{annotations!r} holds no .txt file, {_EXPECTED}; copy the room again.") from error
    if faults := [source.fault for source in objects if source.fault]:
        raise ScanError(f"room {uri!r} cannot be read: {faults[0]}")
    return objects


def read_header(uri: str) -> ScanHeader:
    """What the names of a room's files tell: no count, no bounds, two of the known defects.

    Raises:
        ScanError: as `object_files`.
    """
    files = object_files(uri)
    names = [file.name for file in inputs.expand([uri], (".txt",))]
    own = f"{storage.name_of(uri)}.txt"
    notes = [
        f"{name!r} is not named after the room ({own!r}); it is not read, as {_ANNOTATIONS} holds its points."
        for name in names
        if "/" not in name and name != own
    ]
    unknown = sorted({_class_name(file.uri) for file in files} - set(_CLASSES))
    if unknown:
        notes.append(f"objects outside the 13 classes are read as clutter: {', '.join(unknown)}.")
    return ScanHeader(
        uri=uri,
        format="S3DIS room",
        num_points=None,
        bounds=None,
        crs=None,
        attributes=("red", "green", "blue", "classification"),
        resolution=None,
        dimensions=("x", "y", "z", "red", "green", "blue"),
        notes=tuple(notes),
    )


def iterate_columns(header: ScanHeader, report: Callable[[str], None]) -> Iterator[Columns]:
    """The points of a room, object by object in the order of their files' names.

    xyz in metres; red, green and blue as uint16 (0–255 times 257, as the LAS specification asks for);
    classification uint8 as class index in the scheme "s3dis".

    Args:
        report: called with one sentence on every malformed line that is skipped, or their number where they
            are many.

    Raises:
        ScanError: no file or no readable point in the room.
        StorageError: a file that cannot be opened.
    """
    files, has_points = object_files(header.uri), False
    for file in files:
        points = _read_object(file.uri, report)
        has_points = has_points or len(points) > 0
        code = _CLASSES.get(_class_name(file.uri), _CLUTTER)
        for start in range(0, len(points), CHUNK_POINTS):
            chunk = points[start : start + CHUNK_POINTS]
            colours = np.rint(chunk[:, 3:]).astype(np.uint16) * np.uint16(257)
            attributes = {
                name: np.ascontiguousarray(colours[:, i]) for i, name in enumerate(("red", "green", "blue"))
            }
            attributes["classification"] = np.full(len(chunk), code, np.uint8)
            yield np.ascontiguousarray(chunk[:, :3]), attributes
    if not has_points:
        raise ScanError(
            f"{header.uri!r} holds no readable point in {len(files)} files, {_EXPECTED}; copy it again."
        )


def _class_name(uri: str) -> str:
    return storage.name_of(uri).split("_")[0].removesuffix(".txt").lower()


def _read_object(uri: str, report: Callable[[str], None]) -> np.ndarray:
    """Good rows (n, 6) float64 of one file."""
    content = storage.read_bytes(uri)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty file, which is good here
            # latin-1 decodes every byte, so a stray one fails as a number and not as text.
            points = np.loadtxt(io.BytesIO(content), comments=None, ndmin=2, encoding="latin-1")
        if points.size == 0:
            return np.empty((0, 6))
        if points.shape[1] == 6 and _good(points).all():
            return points
    except ValueError:
        pass  # some line is malformed; which one is found below
    return _read_line_by_line(uri, content, report)


def _read_line_by_line(uri: str, content: bytes, report: Callable[[str], None]) -> np.ndarray:
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
        if bad <= _REPORTED_LINES:
            report(f"{uri}, line {number}: malformed, skipped: {line[:80]!r}.")
    if bad > _REPORTED_LINES:
        report(f"{uri}: {bad} malformed lines skipped in all.")
    return np.array(rows, np.float64).reshape(-1, 6)


def _good(points: np.ndarray) -> np.ndarray:
    """(n,) bool: finite coordinates and colours from 0 to 255, of rows (n, 6)."""
    colours = points[:, 3:]
    return np.isfinite(points).all(axis=1) & (colours >= 0).all(axis=1) & (colours <= 255).all(axis=1)
