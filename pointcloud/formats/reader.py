"""One way to read a scan of any format: its header, its points chunk by chunk, or all of them at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np
from pyproj import CRS

from pointcloud.cloud import CHUNK_POINTS, WITHHELD, Cloud, Columns, ScanHeader
from pointcloud.crs import is_local, metres_per_unit, name_of, unit_names
from pointcloud.errors import ScanError
from pointcloud.formats import arrays, columns, copc, e57, las, ply, s3dis
from pointcloud.formats.las_bounds import are_alike, are_wide, distance_beyond
from pointcloud.storage import files as storage
from pointcloud.storage import inputs
from pointcloud.storage.filesystem import is_utf8

__all__ = [
    "CHUNK_POINTS", "SUFFIXES", "ScanHeader", "Window", "colour_scale", "find_scans", "iterate_clouds", "read_cloud",
    "read_header",
]  # fmt: skip

SUFFIXES = (*las.SUFFIXES, *ply.SUFFIXES, *arrays.SUFFIXES, *e57.SUFFIXES)
"""How the names of scans end, in small letters; S3DIS rooms are folders."""

Window = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max in CRS units, half-open: points with x_min ≤ x < x_max and y_min ≤ y < y_max."""

_DEGREES_OF_A_SCAN, _TALL, _FEWEST_IN_DEGREES = 0.05, 100.0, 100
_log = logging.getLogger(__name__)


def find_scans(patterns: list[str], suffixes: tuple[str, ...] = SUFFIXES) -> list[inputs.Source]:
    """The scans that paths, folders and globs mean: files of a known format, and the rooms that folders are or hold.

    Args:
        suffixes: how the names of files end that folders are searched for, in small letters.

    Raises:
        StorageError: nothing there, or two scans with one name.
    """
    rooms_found: list[inputs.Source] = []
    files = []
    for pattern in patterns:
        below = s3dis.find_rooms(pattern) if is_utf8(pattern) else []
        rooms_found += below
        if not below or (not s3dis.is_room(pattern) and _holds_files(pattern, suffixes)):
            files.append(pattern)
    return inputs.unique([*rooms_found, *(inputs.expand(files, suffixes) if files else [])])


def _holds_files(folder: str, suffixes: tuple[str, ...]) -> bool:
    return any(file.name.lower().endswith(suffixes) for file in storage.list_files(folder))


def read_header(uri: str, crs: CRS | None = None) -> ScanHeader:
    """What is known of a scan before its points are decoded.

    Where a LAS header has bounds that cannot be those of the points, or are too wide for so few, all points are decoded
    to find theirs.

    Args:
        uri: the scan.
        crs: is used in place of what the file says of its CRS; None: what the file says.

    Raises:
        ScanError: not a scan of a known format, or a header that cannot be true.
        StorageError: nothing there.
    """
    header = _read_header(uri, crs)
    if not header.num_points or not uri.lower().endswith(las.SUFFIXES):
        return header
    if header.bounds is None or are_wide(header.bounds, header.num_points):
        # What is wrong with a damaged file is reported when its points are read.
        with suppress(ScanError):
            return _with_bounds(header, las.measure_bounds(uri))
    return header


def _with_bounds(header: ScanHeader, bounds: np.ndarray | None) -> ScanHeader:
    """A LAS header with the bounds of its points."""
    notes = header.notes
    if header.bounds is not None and bounds is not None:
        if are_alike(header.bounds, bounds):
            return header
        notes = (*notes, las.UNTRUE_BOUNDS)
    return replace(header, bounds=bounds, notes=notes)


def _read_header(uri: str, crs: CRS | None) -> ScanHeader:
    header = _header_of_file(uri)
    return header if crs is None else in_crs(header, crs)


def in_crs(header: ScanHeader, crs: CRS) -> ScanHeader:
    """A header with another CRS than the file says, which is noted."""
    horizontal, vertical = unit_names(crs)
    said = f"its file says {name_of(header.crs)!r}"
    if header.crs is None:
        reasons = [note.removesuffix(".").removesuffix("; metres are assumed") for note in header.crs_notes]
        said = "; ".join(reasons) or "its file names none"
    note = f"its CRS is taken to be {name_of(crs)!r} (horizontal unit {horizontal}, vertical unit {vertical}); {said}."
    return replace(header, crs=crs, crs_notes=(note,))


def _header_of_file(uri: str) -> ScanHeader:
    for module in (las, ply, arrays, e57):
        if uri.lower().endswith(module.SUFFIXES):
            return module.read_header(uri)
    if s3dis.is_room(uri):
        return s3dis.read_header(uri)
    what = "is no scan" if storage.exists(uri) else "does not exist"
    raise ScanError(
        f"{uri!r} {what}, expected a file ending in {', '.join(SUFFIXES)}, or the folder of an S3DIS room, which "
        "holds a folder Annotations; check the path, convert it or leave it out."
    )


def iterate_clouds(
    uri: str,
    window: Window | None = None,
    report: Callable[[str], None] | None = None,
    crs: CRS | None = None,
) -> Iterator[Cloud]:
    """The points of a scan in the order of the file, at most `CHUNK_POINTS` at a time, none of them empty.

    Every cloud has the attributes that the header names, and `WITHHELD` where it holds such points. Colours are as they
    are stored: see `colour_scale`.

    Args:
        uri: the scan.
        window: only the points inside; a window that no point is in gives no cloud.
        report: called with one sentence on everything that is mended, left out or assumed; without it, the log
            says so.
        crs: of the scan, in place of what its file says; None: what the file says.

    Raises:
        ScanError: unreadable, without points, in degrees (whatever its CRS says), or with NaN coordinates.
        StorageError: nothing there, or no longer to be reached.
    """
    header = _read_header(uri, crs)
    report = report or (lambda note: _log.warning("%s: %s", uri, note))
    for note in (*header.crs_notes, *header.notes):
        report(note)
    seen, beyond, corners = 0, 0.0, np.empty((0, 3))
    try:
        metres_per_unit(header.crs)
        # A local CRS is one that the user names, by the units.
        may_be_degrees = crs is None or not is_local(crs)
        if may_be_degrees and header.bounds is not None:
            _refuse_degrees(header.bounds, header.num_points or 0)
        chunks = _columns(header, window, report)
        for xyz, attributes in chunks:
            bad = _num_bad(xyz)
            if bad:
                rest = [(len(more), _num_bad(more)) for more, _ in chunks]
                total = seen + len(xyz) + sum(count for count, _ in rest)
                raise ScanError(
                    f"{bad + sum(b for _, b in rest)} of {total} points have NaN or infinite coordinates, expected "
                    "numbers; remove them or export the scan again."
                )
            cloud = Cloud(xyz, attributes, header.crs)
            seen += len(cloud)
            if len(cloud):
                corners = _corners(np.concatenate([corners, cloud.corners()]))
            if header.bounds is not None and len(cloud):
                beyond = max(beyond, distance_beyond(header.bounds, cloud.corners()))
            if window is not None:
                low, high = np.array(window[:2]), np.array(window[2:])
                inside = np.all((xyz[:, :2] >= low) & (xyz[:, :2] < high), axis=1)
                cloud = cloud[np.flatnonzero(inside)]
            if len(cloud):
                yield cloud
        if may_be_degrees and header.bounds is None and seen:
            _refuse_degrees(corners, seen)
    except ScanError as error:
        raise error if repr(uri) in str(error) else ScanError(f"scan {uri!r}: {error}") from error
    if beyond:
        report(
            f"its points reach {beyond:,.6g} CRS units beyond the bounds in its header, by which the scans beside it "
            "are found."
        )
    if header.bounds is not None and seen == header.num_points and _is_too_wide(header.bounds, corners, seen):
        report(las.UNTRUE_BOUNDS)
    if not seen and (window is None or header.num_points == 0):
        raise ScanError(f"scan {uri!r} holds no points; leave it out or deliver it again.")


def _refuse_degrees(bounds: np.ndarray, num_points: int) -> None:
    """Raise ScanError where bounds (2, 3) can only be degrees of longitude and latitude, with heights in metres.

    Their CRS says otherwise, or there is none: a tile of a few km is then some hundredths of a metre wide, and tall.
    """
    (width, depth, height), farthest = bounds[1] - bounds[0], np.abs(bounds).max(axis=0)
    widest = max(width, depth)
    if (
        num_points >= _FEWEST_IN_DEGREES
        and 0 < widest < _DEGREES_OF_A_SCAN
        and height > _TALL * widest
        and farthest[0] <= 180
        and farthest[1] <= 90
    ):
        raise ScanError(
            f"its points lie within {widest:.2g} units and {height:.3g} of height, as coordinates in degrees do, "
            "expected metres or feet; reproject it to a projected CRS, or name its units where they are right."
        )


def _is_too_wide(bounds: np.ndarray, corners: np.ndarray, num_points: int) -> bool:
    return num_points > 0 and are_wide(bounds, num_points) and not are_alike(bounds, corners)


def _corners(points: np.ndarray) -> np.ndarray:
    """(2, 3), the lowest and the highest coordinates of points (n, 3)."""
    return np.stack([points.min(axis=0), points.max(axis=0)])


def _num_bad(xyz: np.ndarray) -> int:
    # A sum is finite only where every coordinate is: one pass, without a temporary array.
    if np.isfinite([column.sum() for column in xyz.T]).all():
        return 0
    return int(np.count_nonzero(~np.isfinite(xyz).all(axis=1)))


def _columns(header: ScanHeader, window: Window | None, report: Callable[[str], None]) -> Iterator[Columns]:
    if header.format.startswith("COPC") and window is not None:
        return copc.iterate_columns(header, *window)
    if header.uri.lower().endswith(las.SUFFIXES):
        return las.iterate_columns(header)
    for module in (ply, arrays, e57):
        if header.uri.lower().endswith(module.SUFFIXES):
            return module.iterate_columns(header, report)
    return s3dis.iterate_columns(header, report)


def colour_scale(largest: int) -> int | None:
    """What the colours of a whole scan are multiplied with to be 16 bits as LAS wants them.

    A property of the whole scan, not of a chunk: a caller that reads chunks keeps the largest value of red, green
    and blue over all of them, and scales at the end.

    Args:
        largest: the largest value of any colour of any point of the scan.

    Returns:
        None where the colours were never filled, so that the scan carries none; 257 where they are 8 bits
        (255 × 257 = 65535); 1 where they are 16.
    """
    if largest == 0:
        return None
    return 257 if largest <= 255 else 1


def never_filled(largest: Mapping[str, int], wrong_returns: float = 0.0) -> frozenset[str]:
    """Attributes that a file has room for but that were never filled: colours that are all 0, and return numbers.

    A property of the whole scan, as `colour_scale` is.

    Args:
        largest: attribute -> its largest value over all points; of the attributes that the scan has.
        wrong_returns: the share of its points whose return numbers cannot be, see `columns.num_wrong_returns`. Where
            they are most, none is trusted.
    """
    unfilled: set[str] = set()
    if not any(largest.get(name, 0) for name in columns.COLOURS):
        unfilled.update(columns.COLOURS)
    # One of the two attributes without the other is of no use.
    if not all(largest.get(name, 1) for name in columns.RETURNS) or wrong_returns > _MOST_WRONG_RETURNS:
        unfilled.update(columns.RETURNS)
    return frozenset(unfilled & largest.keys())


_MOST_WRONG_RETURNS = 0.5
SINGLE_RETURNS = "every point counts as a single return."
NO_RETURNS = f"its return numbers are all 0: they count as absent, and {SINGLE_RETURNS}"


def about_returns(largest: Mapping[str, int], wrong_returns: float) -> list[str]:
    """A sentence on return numbers that were never filled or cannot be, see `never_filled`; none on sound ones."""
    if not never_filled(largest).isdisjoint(columns.RETURNS):
        return [NO_RETURNS]
    if not wrong_returns:
        return []
    share = f"{wrong_returns:.1%}" if wrong_returns >= 0.001 else "less than 0.1%"
    what = f"the return numbers of {share} of its points are 0 or above their number of returns"
    return [
        f"{what}: none is used, and {SINGLE_RETURNS}" if wrong_returns > _MOST_WRONG_RETURNS else f"{what}."
    ]


def read_cloud(uri: str, report: Callable[[str], None] | None = None) -> Cloud:
    """A whole scan as one cloud, its colours settled, without the flag `WITHHELD`. Raises as `iterate_clouds`."""
    chunks = list(iterate_clouds(uri, report=report))
    names = [name for name in chunks[0].attributes if name != WITHHELD]
    attributes = {name: np.concatenate([chunk.attributes[name] for chunk in chunks]) for name in names}
    largest = {name: int(attributes[name].max()) for name in columns.MAY_BE_UNFILLED if name in attributes}
    wrong = columns.num_wrong_returns(attributes) / max(len(attributes.get("return_number", ())), 1)
    for name in never_filled(largest, wrong):
        del attributes[name]
    if "red" in attributes:
        scale = colour_scale(max(largest[name] for name in columns.COLOURS))
        for name in columns.COLOURS:
            attributes[name] = attributes.pop(name) * np.uint16(scale or 1)
    return Cloud(np.concatenate([chunk.xyz for chunk in chunks]), attributes, chunks[0].crs)
