"""Reading points from NumPy files, in chunks, from any storage. Nothing pickled is ever loaded.

NPY: one array, either

- structured, one field per name (see `columns` for names and types), or
- (P, 3) numbers x y z, (P, 6) x y z red green blue, or (P, 7) x y z red green blue and class, as S3DIS and ScanNet
  are usually passed around.

NPZ: arrays of equal length by name, compressed or not: the coordinates as `xyz`, `points`, `coord`, `coords`, `pos`
or `position`, (P, 3), or as x, y and z; colours as `rgb`, `color`, `colors`, `colour` or `colours`, (P, 3), or one by
one; the rest by the names of `columns`. Arrays of any other name or length are left out.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO

import numpy as np

from pointcloud.cloud import CHUNK_POINTS, Columns, ScanHeader
from pointcloud.formats import columns
from pointcloud.formats.decoding import reading, unreadable
from pointcloud.storage import files

SUFFIXES = (".npy", ".npz")
_EXPECTED = "NumPy arrays of points as the README lays them out"
_WIDTHS = {3: columns.AXES, 6: (*columns.AXES, *columns.COLOURS)}
_WIDTHS[7] = (*_WIDTHS[6], "classification")
_STACKED = {
    **dict.fromkeys(("xyz", "points", "coord", "coords", "pos", "position"), columns.AXES),
    **dict.fromkeys(("rgb", "color", "colors", "colour", "colours"), columns.COLOURS),
}
_CHUNK_BYTES = 256 << 20


@dataclass(frozen=True)
class _Array:
    """One array of a file, its stream at the first row."""

    stream: IO[bytes]
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape[1:]))


Place = str | int | None
"""Where in an array a column is: the field of that name, the column of that number, or all of it."""
_Opened = tuple[dict[str, _Array], dict[str, tuple[str, Place]]]
"""The arrays by name, and of every axis and attribute in which of them it is and where."""


def read_header(uri: str) -> ScanHeader:
    """What the arrays' headers say; there are neither bounds nor a CRS.

    Raises:
        ScanError: no NumPy file, pickled objects, no coordinates, or more promised than the file can hold.
    """
    with ExitStack() as stack, reading(uri, _EXPECTED):
        arrays, places = _open(uri, stack)
    dimensions = [
        name or f"{array.shape[1]} columns" for name, array in arrays.items() if not array.dtype.names
    ]
    dimensions += [name for array in arrays.values() for name in array.dtype.names or ()]
    left_out = sorted(set(arrays) - {name for name, _ in places.values()})
    notes = ["NumPy files name no CRS; metres are assumed."]
    if left_out:
        notes.append(f"arrays that are no attribute of its points are left out: {', '.join(left_out)}.")
    return ScanHeader(
        uri=uri,
        format=uri[-3:].upper(),
        num_points=arrays[places["x"][0]].shape[0],
        bounds=None,
        crs=None,
        attributes=columns.attributes_of(places),
        resolution=None,
        dimensions=tuple(dimensions),
        notes=tuple(notes),
    )


def iterate_columns(header: ScanHeader, report: Callable[[str], None]) -> Iterator[Columns]:
    """The points in the order of the arrays. Raises ScanError for a file that ends early."""

    def tables() -> Iterator[columns.Table]:
        with ExitStack() as stack:
            arrays, places = _open(header.uri, stack)
            used = {name: arrays[name] for name, _ in places.values()}
            num_points = arrays[places["x"][0]].shape[0]
            row_bytes = sum(array.row_bytes for array in used.values())
            size = max(1, min(CHUNK_POINTS, _CHUNK_BYTES // max(row_bytes, 1)))
            for start in range(0, num_points, size):
                count = min(size, num_points - start)
                rows = {name: _read(header.uri, array, count) for name, array in used.items()}
                yield {ours: _column(rows[name], place) for ours, (name, place) in places.items()}

    with reading(header.uri, _EXPECTED):
        with ExitStack() as stack:
            arrays, places = _open(header.uri, stack)
        yield from columns.iterate_columns(tables, _types(arrays, places), report)


def _open(uri: str, stack: ExitStack) -> _Opened:
    """The arrays of a file, open until the stack ends."""
    file = stack.enter_context(files.open_input(uri))
    if uri.lower().endswith(".npy"):
        array = _array(uri, file, file.size())
        arrays, places = {"": array}, _places_in_one(uri, array)
    else:
        try:
            archive = stack.enter_context(zipfile.ZipFile(file))
        except zipfile.BadZipFile as error:
            raise unreadable(uri, error, _EXPECTED) from error
        infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        arrays = {
            i.filename[:-4]: _array(uri, stack.enter_context(archive.open(i)), i.file_size) for i in infos
        }
        places = _places_by_name(arrays)
    missing = [axis for axis in columns.AXES if axis not in places]
    if missing:
        raise unreadable(uri, f"it has no coordinates {', '.join(missing)}", _EXPECTED)
    for name, kind in _types(arrays, places).items():
        if kind.kind not in "fiu" or kind.shape:
            raise unreadable(uri, f"its {name!r} is of type {kind}, not a column of numbers", _EXPECTED)
    return arrays, places


def _array(uri: str, stream: IO[bytes], size: int) -> _Array:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise unreadable(uri, f"its array is of NPY version {version}", _EXPECTED)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(stream)
    if dtype.hasobject:
        raise unreadable(uri, "it holds Python objects, which could run code", _EXPECTED)
    if fortran_order and len(shape) > 1:
        raise unreadable(uri, "its array is stored column by column (Fortran order)", _EXPECTED)
    promised = math.prod(shape) * dtype.itemsize
    if promised > size:
        raise unreadable(
            uri, f"its array of shape {shape} promises {promised} bytes, there are {size}", _EXPECTED
        )
    return _Array(stream, dtype, shape)


def _places_in_one(uri: str, array: _Array) -> dict[str, tuple[str, Place]]:
    if len(array.shape) == 1 and array.dtype.names:
        return {ours: ("", theirs) for ours, theirs in columns.match_names(array.dtype.names).items()}
    if len(array.shape) == 2 and array.shape[1] in _WIDTHS:
        return {ours: ("", number) for number, ours in enumerate(_WIDTHS[array.shape[1]])}
    raise unreadable(uri, f"its array has shape {array.shape} and type {array.dtype}", _EXPECTED)


def _places_by_name(arrays: dict[str, _Array]) -> dict[str, tuple[str, Place]]:
    places: dict[str, tuple[str, Place]] = {}
    for wanted, parts in _STACKED.items():
        for name, array in arrays.items():
            if name.lower() == wanted and array.shape[1:] == (3,) and parts[0] not in places:
                places |= {part: (name, number) for number, part in enumerate(parts)}
    single = [name for name, array in arrays.items() if array.shape[1:] in ((), (1,))]
    for ours, name in columns.match_names(single).items():
        places.setdefault(ours, (name, None if len(arrays[name].shape) == 1 else 0))
    points = arrays[places["x"][0]].shape[:1] if "x" in places else ()
    return {ours: (name, place) for ours, (name, place) in places.items() if arrays[name].shape[:1] == points}


def _types(arrays: dict[str, _Array], places: dict[str, tuple[str, Place]]) -> dict[str, np.dtype]:
    return {
        ours: arrays[name].dtype[place] if isinstance(place, str) else arrays[name].dtype
        for ours, (name, place) in places.items()
    }


def _column(rows: np.ndarray, place: Place) -> np.ndarray:
    if place is None:
        return rows
    return rows[place] if isinstance(place, str) else rows[:, place]


def _read(uri: str, array: _Array, count: int) -> np.ndarray:
    wanted = count * array.row_bytes
    content = array.stream.read(wanted)
    if len(content) < wanted:
        raise unreadable(uri, f"it ends after {len(content)} of {wanted} bytes", _EXPECTED)
    return np.frombuffer(content, array.dtype).reshape(count, *array.shape[1:])
