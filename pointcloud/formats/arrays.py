"""Reading points from NumPy files, in chunks, from any storage. Nothing pickled is ever loaded.

NPY: one array, either

- structured, one field per name (see `columns` for names and types), or
- (P, 3) numbers x y z, (P, 6) x y z red green blue, or (P, 7) x y z red green blue and class, as S3DIS and ScanNet
  are usually passed around; also transposed, with a row for each of these.

NPZ: arrays by name, compressed or not, of one row per point: the coordinates as `xyz`, `points`, `coord`, `coords`,
`pos` or `position`, (P, 3), or as x, y and z; colours as `rgb`, `color`, `colors`, `colour` or `colours`, (P, 3), or
one by one; the rest by the names of `columns`. Of colours with an opacity, (P, 4), that is left out. Fields of a
structured array may have these names too. Arrays of any other name are left out.

Numbers may be of any size and byte order, stored by rows or by columns (Fortran order, as `np.vstack([x, y, z]).T` is).
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import IO, cast

import numpy as np

from pointcloud.cloud import CHUNK_POINTS, Columns, ScanHeader
from pointcloud.formats import columns
from pointcloud.formats.decoding import reading, unreadable
from pointcloud.formats.npy import RowReader, StoredArray, find_array
from pointcloud.storage import files

SUFFIXES = (".npy", ".npz")
_EXPECTED = "NumPy arrays of numbers with one row per point"
_REMEDY = "write it again with one row per point in each of its arrays, or leave it out"
_NUMBERS = "write it again with numbers alone, or leave it out"
_WIDTHS = {3: columns.AXES, 6: (*columns.AXES, *columns.COLOURS)}
_WIDTHS[7] = (*_WIDTHS[6], "classification")
_STACKED = {
    **dict.fromkeys(("xyz", "points", "coord", "coords", "pos", "position"), columns.AXES),
    **dict.fromkeys(("rgb", "color", "colors", "colour", "colours"), columns.COLOURS),
}
_STACKED_WIDTHS = {columns.AXES: (3,), columns.COLOURS: (3, 4)}
_CHUNK_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class _Column:
    """Where an axis or attribute is.

    Attributes:
        array: the name of the array.
        field: of a structured array; None: it has none.
        index: the number of the column in the array or field; None: it has one dimension.
    """

    array: str
    field: str | None = None
    index: int | None = None

    def of(self, rows: np.ndarray) -> np.ndarray:
        """(n,), the values in rows of the array."""
        values = rows if self.field is None else rows[self.field]
        return values if self.index is None else values[:, self.index]

    def dtype_in(self, dtype: np.dtype) -> np.dtype:
        """The type of the values in an array of that type."""
        of_field = dtype if self.field is None else dtype[self.field]
        return of_field if self.index is None else of_field.base


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """The arrays of a file by name, and where in them every axis and attribute is; num_points rows each."""

    arrays: Mapping[str, StoredArray]
    places: Mapping[str, _Column]
    num_points: int

    def types(self) -> dict[str, np.dtype]:
        return {name: place.dtype_in(self.arrays[place.array].dtype) for name, place in self.places.items()}


def read_header(uri: str) -> ScanHeader:
    """What the arrays' headers say; there are neither bounds nor a CRS.

    Raises:
        ScanError: no NumPy file, pickled objects, no coordinates, an attribute of another length than the points, or
            more promised than the file can hold.
    """
    with ExitStack() as stack, reading(uri, _EXPECTED):
        layout = _open(uri, stack)
    plain = [(name, array) for name, array in layout.arrays.items() if not array.dtype.names]
    dimensions = [name or f"{array.shape[1]} columns" for name, array in plain]
    dimensions += [name for array in layout.arrays.values() for name in array.dtype.names or ()]
    left_out = sorted(set(layout.arrays) - {place.array for place in layout.places.values()})
    notes = []
    if left_out:
        notes.append(f"arrays that are not attributes of its points are left out: {', '.join(left_out)}.")
    return ScanHeader(
        uri=uri,
        format=uri[-3:].upper(),
        num_points=layout.num_points,
        bounds=None,
        crs=None,
        attributes=columns.attributes_of(layout.places),
        resolution=None,
        dimensions=tuple(dimensions),
        notes=tuple(notes),
        crs_notes=("NumPy files hold no CRS; metres are assumed.",),
    )


def iterate_columns(header: ScanHeader, report: Callable[[str], None]) -> Iterator[Columns]:
    """The points in the order of the arrays, chunk after chunk.

    Args:
        header: of the scan.
        report: called with one sentence on what is changed on the way.

    Raises:
        ScanError: as `read_header`, or a file that ends early.
    """

    def tables() -> Iterator[columns.Table]:
        with ExitStack() as stack:
            layout = _open(header.uri, stack)
            used = {place.array: layout.arrays[place.array] for place in layout.places.values()}
            readers = {name: RowReader(header.uri, array, stack, _EXPECTED) for name, array in used.items()}
            row_bytes = sum(array.row_bytes for array in used.values())
            size = max(1, min(CHUNK_POINTS, _CHUNK_BYTES // max(row_bytes, 1)))
            for start in range(0, layout.num_points, size):
                count = min(size, layout.num_points - start)
                rows = {name: reader.read(count) for name, reader in readers.items()}
                yield {name: place.of(rows[place.array]) for name, place in layout.places.items()}

    with reading(header.uri, _EXPECTED):
        with ExitStack() as stack:
            types = _open(header.uri, stack).types()
        yield from columns.iterate_columns(tables, types, report)


def _open(uri: str, stack: ExitStack) -> _Layout:
    """The layout of a file, whose arrays can be read until the stack ends."""
    if uri.lower().endswith(".npy"):
        with files.open_input(uri) as file:
            size = file.size()
        open_file = cast(Callable[[], IO[bytes]], partial(files.open_input, uri))
        array, places = _places_in_one(uri, find_array(uri, open_file, size, _EXPECTED))
        arrays = {"": array}
    else:
        arrays, places = _places_by_name(uri, _members(uri, stack))
    missing = [axis for axis in columns.AXES if axis not in places]
    if missing:
        held = ", ".join(f"{name!r} of shape {array.shape}" for name, array in arrays.items()) or "nothing"
        reason = f"it has no coordinates {', '.join(missing)}; it holds {held}"
        raise unreadable(uri, reason, f"{_EXPECTED}, such as xyz of shape (P, 3)", _REMEDY)
    num_points = arrays[places["x"].array].shape[0]
    for place in places.values():
        array = arrays[place.array]
        if array.dtype.hasobject:
            raise unreadable(uri, "it holds Python objects, which could run code", _EXPECTED, _NUMBERS)
        if array.shape[0] != num_points:
            reason = f"its array {place.array!r} has {array.shape[0]} rows for {num_points} points"
            raise unreadable(uri, reason, _EXPECTED, _REMEDY)
    layout = _Layout(arrays=arrays, places=places, num_points=num_points)
    for name, kind in layout.types().items():
        if kind.kind not in "fiu" or kind.shape:
            raise unreadable(
                uri, f"its {name!r} is of type {kind}, not a column of numbers", _EXPECTED, _NUMBERS
            )
    return layout


def _members(uri: str, stack: ExitStack) -> dict[str, StoredArray]:
    file = stack.enter_context(files.open_input(uri))
    try:
        archive = stack.enter_context(zipfile.ZipFile(file))
    except zipfile.BadZipFile as error:
        raise unreadable(uri, error, _EXPECTED) from error
    return {
        info.filename[:-4]: find_array(uri, partial(archive.open, info), info.file_size, _EXPECTED)
        for info in archive.infolist()
        if info.filename.endswith(".npy")
    }


def _places_in_one(uri: str, array: StoredArray) -> tuple[StoredArray, dict[str, _Column]]:
    """The array of an NPY file, with its points first, and what is where in it."""
    if array.dtype.names and max(array.shape, default=0) == np.prod(array.shape):
        return array.flat(), _places_in_fields("", array.dtype)
    if len(array.shape) == 2 and not array.dtype.names:
        if array.shape[1] not in _WIDTHS and array.shape[0] in _WIDTHS:
            array = array.transposed()
        if array.shape[1] in _WIDTHS:
            names = _WIDTHS[array.shape[1]]
            return array, {name: _Column(array="", index=index) for index, name in enumerate(names)}
    raise unreadable(uri, f"its array has shape {array.shape} and type {array.dtype}", _EXPECTED, _REMEDY)


def _places_in_fields(array: str, dtype: np.dtype) -> dict[str, _Column]:
    fields = dtype.names or ()
    places: dict[str, _Column] = {}
    for wanted, parts in _STACKED.items():
        for field in fields:
            if columns.plain_name(field) == wanted and dtype[field].shape == (3,) and parts[0] not in places:
                places |= {
                    name: _Column(array=array, field=field, index=index) for index, name in enumerate(parts)
                }
    for name, field in columns.match_names(fields).items():
        places.setdefault(name, _Column(array=array, field=field))
    return places


def _places_by_name(
    uri: str, arrays: Mapping[str, StoredArray]
) -> tuple[dict[str, StoredArray], dict[str, _Column]]:
    """The arrays of an NPZ file, those of its points with the points first, and what is where in them.

    Raises:
        ScanError: an array that has the name of an attribute, and several numbers per point.
    """
    shown = dict(arrays)
    places: dict[str, _Column] = {}
    for wanted, parts in _STACKED.items():
        for name, array in arrays.items():
            if name.lower() == wanted and len(array.shape) == 2 and parts[0] not in places:
                by_rows = array if array.shape[1] in _STACKED_WIDTHS[parts] else array.transposed()
                if by_rows.shape[1] in _STACKED_WIDTHS[parts]:
                    shown[name] = by_rows
                    places |= {part: _Column(array=name, index=index) for index, part in enumerate(parts)}
    single = [
        name for name, array in arrays.items() if array.shape and max(array.shape) == np.prod(array.shape)
    ]
    for ours, name in columns.match_names(single).items():
        if ours not in places:
            shown[name] = arrays[name].flat()
            places[ours] = _Column(array=name)
    wide = [name for name, array in arrays.items() if len(array.shape) > 1 and name not in single]
    for ours, name in columns.match_names(wide).items():
        if ours not in places and ours not in columns.AXES:
            reason = f"its array {name!r} has shape {arrays[name].shape}, not one number per point"
            raise unreadable(uri, reason, _EXPECTED, _REMEDY)
    structured = [name for name, array in arrays.items() if array.dtype.names and len(array.shape) == 1]
    if not set(columns.AXES) <= places.keys() and len(structured) == 1:
        return shown, _places_in_fields(structured[0], arrays[structured[0]].dtype) | places
    return shown, places
