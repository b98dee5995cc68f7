"""Writing tables of points as PLY, binary and little-endian, and reading back what was written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from pyproj import CRS

from pointcloud.delivery.scan_columns import Columns
from pointcloud.errors import ScanError

_TYPES = {
    "i1": "char", "u1": "uchar", "i2": "short", "u2": "ushort", "i4": "int", "u4": "uint", "f4": "float",
    "f8": "double",
}  # fmt: skip
_CRS = "comment crs: "


def write_ply(
    part: Path, num_points: int, chunks: Iterator[Columns], crs: CRS | None, comments: Callable[[], Sequence[str]]
) -> list[int]:  # fmt: skip
    """Write points to a local file, and its CRS as a comment of WKT that `ply.read_header` understands.

    Args:
        num_points: of all chunks together.
        chunks: with the same columns each.
        comments: gives lines of the header when the first chunk is there; one that names a CRS is not doubled.

    Returns:
        The points of each chunk.

    Raises:
        ScanError: a column of a type that PLY does not have.
    """
    sizes = []
    with part.open("wb") as stream:
        for number, columns in enumerate(chunks):
            names = ply_names(list(columns))
            record = np.empty(
                len(next(iter(columns.values()))),
                [(n, v.dtype.newbyteorder("<")) for n, v in zip(names, columns.values(), strict=True)],
            )
            if not number:
                large = [n for n in names if record.dtype[n].str[1:] not in _TYPES]
                if large:
                    raise ScanError(
                        f"PLY has no numbers of the type of dimension {large[0]!r} ({record.dtype[large[0]]}); write "
                        "Parquet, or LAZ."
                    )
                stream.write(_header(record.dtype, num_points, crs, comments()))
            for name, values in zip(names, columns.values(), strict=True):
                record[name] = values
            stream.write(record.tobytes())
            sizes.append(len(record))
    return sizes


def ply_names(names: Sequence[str]) -> list[str]:
    """Names as PLY can have them: it ends a name at white space."""
    made: list[str] = []
    for name in names:
        plain = re.sub(r"\s+", "_", name)
        made.append(plain if plain not in made else f"{plain}_{len(made)}")
    return made


def _header(dtype: np.dtype, num_points: int, crs: CRS | None, comments: Sequence[str]) -> bytes:
    properties = [f"property {_TYPES[dtype[name].str[1:]]} {name}" for name in dtype.names or ()]
    if crs is not None and not any(line.startswith(_CRS) for line in comments):
        comments = [*comments, f"{_CRS}{' '.join(crs.to_wkt().split())}"]
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        *comments,
        f"element vertex {num_points}",
        *properties,
        "end_header",
    ]
    return ("\n".join(lines) + "\n").encode()


def read_ply(part: Path, sizes: Sequence[int]) -> Iterator[Columns]:
    """What was written above, as many points at a time."""
    kinds = {text: kind for kind, text in _TYPES.items()}
    with part.open("rb") as stream:
        fields = []
        while (line := stream.readline().split()) != [b"end_header"]:
            if line[0] == b"property":
                fields.append((line[2].decode(), f"<{kinds[line[1].decode()]}"))
        dtype = np.dtype(fields)
        for size in sizes:
            record = np.frombuffer(stream.read(size * dtype.itemsize), dtype)
            yield {name: record[name] for name in dtype.names or ()}
