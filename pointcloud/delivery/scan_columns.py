"""The columns of a scan of any format, as a table of points has them.

LAS, LAZ and PLY give every dimension under the scan's own name and in its type. What other formats hold is given as
the reader understands it: coordinates, and those of `cloud.ATTRIBUTES` that there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import laspy
import numpy as np

from pointcloud.cloud import ScanHeader
from pointcloud.delivery import extra_dimensions
from pointcloud.formats import columns, las, ply
from pointcloud.formats.reader import iterate_clouds, read_header

Columns = dict[str, np.ndarray]
"""Some points, in the order of the scan: name -> (n,) in the byte order of this machine, next to each other."""
Chunk = tuple[Columns, np.ndarray | None]
"""Columns of some points, and their class codes (n,) uint8; None where the scan has no classes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredScan:
    """The points of a scan, chunk by chunk.

    Attributes:
        header: of the scan.
        chunks: gives its points from the beginning, every time it is called; at most `CHUNK_POINTS` at a time.
        ours: columns that an earlier labelling wrote.
        no_class: the code that stands for none; None where every code is one (LAS has 0 and 1 for that).
        comments: lines of a PLY header.
        elsewhere: what a table of these columns has no place for, or has in another form -> why.
        waveforms: in words.
    """

    header: ScanHeader
    chunks: Callable[[], Iterator[Chunk]]
    ours: frozenset[str] = frozenset()
    no_class: int | None = columns.NO_CLASS
    comments: tuple[str, ...] = ()
    elsewhere: dict[str, str] = field(default_factory=dict)
    waveforms: str = "none"


def read_stored(uri: str) -> StoredScan:
    """A scan's points as they are stored; they are decoded as its chunks are iterated.

    Raises:
        ScanError: not a scan of a known format; while the chunks are iterated also as `reader.iterate_clouds`.
        StorageError: nothing there.
    """
    header = read_header(uri)
    if uri.lower().endswith(las.SUFFIXES):
        return _of_las(header)
    return _of_ply(header) if uri.lower().endswith(ply.SUFFIXES) else _of_other(header)


def _of_las(header: ScanHeader) -> StoredScan:
    def chunks() -> Iterator[Chunk]:
        with las.open_scan(header.uri) as reader:
            for points in las.iterate_chunks(header.uri, reader):
                yield _las_columns(points), np.asarray(points.classification)

    with las.open_scan(header.uri) as reader:
        ours = extra_dimensions.labelling_dimensions(reader.header)
    crs = ", the CRS is there as WKT" if header.crs is not None else ""
    return StoredScan(
        header=header,
        chunks=chunks,
        ours=frozenset(ours),
        no_class=None,
        elsewhere={"header fields, VLRs, EVLRs": f"have no place in this format{crs}"},
        waveforms="none: points keep where their packets are, the packets have no place in this format",
    )


def _las_columns(points: laspy.ScaleAwarePointRecord) -> Columns:
    """Coordinates and dimensions as they are meant; a vector is a column for each component."""
    stored: Columns = {axis: np.asarray(points[axis], np.float64) for axis in columns.AXES}
    for name in points.point_format.dimension_names:
        if name in "XYZ":
            continue
        values = np.ascontiguousarray(points[name])
        if values.ndim == 1:
            stored[extra_dimensions.free_name(name, stored)] = values
        else:
            for number, column in enumerate(values.T):
                name_of_one = extra_dimensions.free_name(f"{name}_{number}", stored)
                stored[name_of_one] = np.ascontiguousarray(column)
    return stored


def _of_ply(header: ScanHeader) -> StoredScan:
    whole = ply.read_whole_header(header.uri)
    others = [element.name for element in whole.elements if element.name != "vertex"]
    class_name = columns.match_names(header.dimensions).get("classification")

    def chunks() -> Iterator[Chunk]:
        for rows in ply.iterate_rows(header.uri):
            made = {name: _own(rows[name]) for name in header.dimensions}
            yield made, None if class_name is None else columns.to_codes(made[class_name])

    elsewhere = {}
    if others:
        elsewhere[f"elements {', '.join(others)}"] = "left out: a labelled cloud has points alone"
    if "ascii" in header.format:
        elsewhere["text"] = "became numbers, floats of 64 bits, which keep all digits"
    elif "big" in header.format:
        elsewhere["byte order"] = "the lowest byte comes first"
    return StoredScan(
        header=header,
        chunks=chunks,
        ours=whole.labelled,
        comments=whole.delivered_comments,
        elsewhere=elsewhere,
    )


def _own(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).astype(values.dtype.newbyteorder("="), copy=False)


def _of_other(header: ScanHeader) -> StoredScan:
    divisor = _colour_divisor(header)

    def chunks() -> Iterator[Chunk]:
        for cloud in iterate_clouds(header.uri, report=_say_nothing):
            made = {axis: np.ascontiguousarray(cloud.xyz[:, n]) for n, axis in enumerate(columns.AXES)}
            made |= cloud.attributes
            if divisor is not None:
                made |= {name: (made[name] // divisor).astype(np.uint8) for name in columns.COLOURS}
            yield made, cloud.attributes.get("classification")

    kind = header.format if header.format[0].isupper() else f"the {header.format}"
    return StoredScan(
        header=header,
        chunks=chunks,
        elsewhere={
            kind: "has no writer: coordinates are 64-bit floats, colours 8 or 16 bits, intensity 16, as Pointloom "
            "reads them; what it does not know is left out"
        },
    )


def _colour_divisor(header: ScanHeader) -> np.uint16 | None:
    """What 16-bit colours are divided by to be the 8 bits that they were, as PLY is used to; None where they have more.

    A property of the whole scan: it is read once for it.
    """
    if "red" not in header.attributes:
        return None
    largest, repeats = 0, True
    for cloud in iterate_clouds(header.uri, report=_say_nothing):
        for name in columns.COLOURS:
            values = cloud.attributes[name]
            largest, repeats = max(largest, int(values.max())), repeats and not (values % 257).any()
    if largest <= 255:
        return np.uint16(1)
    return np.uint16(257) if repeats else None


def _say_nothing(note: str) -> None:
    """Take a note and drop it: it was reported when the scan was decoded for its labels."""
