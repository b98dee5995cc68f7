"""The labelled cloud as PLY or Parquet: every point with every dimension of the scan, its labels, and its CRS.

VLRs, EVLRs and the header's other fields have no place in these formats; LAS and LAZ keep them. Like those, a file is
read back and compared with the scan before it takes its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import laspy
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pointcloud import storage
from pointcloud.errors import PointloomError, ScanError
from pointcloud.extra_dimensions import CONFIDENCE, ORIGINAL, AddedDimension
from pointcloud.header import CHUNK_POINTS
from pointcloud.label_options import LabelOptions
from pointcloud.proof import Proof, Written
from pointcloud.scan import iterate_chunks, open_scan, read_header

SUFFIXES = (".ply", ".parquet")
_PLY_TYPES = {
    "i1": "char", "u1": "uchar", "i2": "short", "u2": "ushort", "i4": "int", "u4": "uint", "f4": "float",
    "f8": "double",
}  # fmt: skip

Columns = dict[str, np.ndarray]


def write_exported(
    scan_uri: str,
    out_uri: str,
    codes: np.ndarray,
    confidence: np.ndarray,
    options: LabelOptions,
    measures: Mapping[AddedDimension, np.ndarray],
) -> Written:
    """Write a labelled cloud as PLY or Parquet, by the suffix of its URI.

    Args, returns and raises as `labelled.write_labelled`, and ScanError for what PLY cannot hold.
    """
    counts, dimensions = np.zeros(256, np.int64), tuple[str, ...]()
    is_ply = out_uri.lower().endswith(".ply")

    def columns() -> Iterator[Columns]:
        at = 0
        with open_scan(scan_uri) as reader:
            for chunk in iterate_chunks(scan_uri, reader):
                now = slice(at, at + len(chunk))
                made = _columns(chunk, codes[now], confidence[now], options)
                for dimension, values in measures.items():
                    made[_free(dimension.name, made)] = values[now] * np.float32(dimension.step or 1)
                yield made
                at += len(chunk)
        if at != len(codes):
            raise ScanError(f"scan {scan_uri!r} has {at} points, expected {len(codes)}.")

    with storage.staged(out_uri) as part:
        if is_ply:
            found = _read_ply(part, _write_ply(part, scan_uri, len(codes), columns()))
        else:
            _write_parquet(part, scan_uri, columns())
            found = _read_parquet(part)
        for wanted, there in zip(columns(), found, strict=True):
            counts += np.bincount(wanted["classification"], minlength=256)
            for name, there_values in zip(wanted, there.values(), strict=True):
                if (
                    np.ascontiguousarray(wanted[name]).tobytes()
                    != np.ascontiguousarray(there_values).tobytes()
                ):
                    raise PointloomError(
                        f"the labelled copy of {scan_uri!r} would differ in dimension {name}; nothing was "
                        "written, please report this scan."
                    )
            dimensions = tuple(wanted)
        return Written(counts, _proof(scan_uri, part, len(codes), dimensions))


def _proof(scan_uri: str, part: Path, num_points: int, dimensions: tuple[str, ...]) -> Proof:
    header = read_header(scan_uri)
    return Proof(
        points=num_points,
        dimensions=dimensions,
        header_fields=(),
        vlrs=0,
        evlrs=0,
        waveforms="none: points keep where their packets are, the packets have no place in this format",
        changed={
            "classification": "the labels",
            "header fields, VLRs, EVLRs": "have no place in this format"
            + (", the CRS is there as WKT" if header.crs is not None else ""),
        },
        content=f"blake2b:{storage.content_hash(str(part))}",
    )


def _columns(
    chunk: laspy.ScaleAwarePointRecord, codes: np.ndarray, confidence: np.ndarray, options: LabelOptions
) -> Columns:
    """Coordinates, the scan's dimensions as they are meant, and the labels; a vector is a column for each component."""
    made: Columns = {axis: np.asarray(chunk[axis], np.float64) for axis in "xyz"}
    for name in chunk.point_format.dimension_names:
        if name in "XYZ":
            continue
        values = np.ascontiguousarray(chunk[name])
        if values.ndim == 1:
            made[_free(name, made)] = values
        else:
            made |= {
                _free(f"{name}_{n}", made): np.ascontiguousarray(column) for n, column in enumerate(values.T)
            }
    before = np.asarray(chunk.classification)
    made["classification"] = options.new_codes(before, codes, confidence)
    if options.keep_original and ORIGINAL.name not in made:
        made[ORIGINAL.name] = before
    made[_free(CONFIDENCE.name, made)] = confidence.astype(np.float32)
    return made


def _free(name: str, taken: Mapping[str, np.ndarray]) -> str:
    """The name, or one like it where the scan has a dimension of that name."""
    while name in taken:
        name = f"{name}_pointloom"
    return name


def _write_parquet(part: Path, scan_uri: str, chunks: Iterator[Columns]) -> None:
    crs = read_header(scan_uri).crs
    writer: pq.ParquetWriter | None = None
    try:
        for columns in chunks:
            table = pa.table(columns)
            if writer is None:
                known = {"pointloom.crs": crs.to_wkt()} if crs is not None else {}
                writer = pq.ParquetWriter(part, table.schema.with_metadata(known), compression="zstd")
            writer.write_table(table.cast(writer.schema), row_group_size=CHUNK_POINTS)
    finally:
        if writer is not None:
            writer.close()


def _read_parquet(part: Path) -> Iterator[Columns]:
    with pq.ParquetFile(part) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number)
            yield {name: table[name].to_numpy() for name in table.column_names}


def _write_ply(part: Path, scan_uri: str, num_points: int, chunks: Iterator[Columns]) -> list[int]:
    """Write the file; the points of each chunk."""
    crs, sizes = read_header(scan_uri).crs, []
    with part.open("wb") as stream:
        for number, columns in enumerate(chunks):
            names = _ply_names(columns)
            record = np.empty(
                len(columns["x"]),
                [(n, v.dtype.newbyteorder("<")) for n, v in zip(names, columns.values(), strict=True)],
            )
            if not number:
                large = [n for n in names if record.dtype[n].str[1:] not in _PLY_TYPES]
                if large:
                    raise ScanError(
                        f"PLY has no numbers of the type of dimension {large[0]!r} of scan {scan_uri!r} "
                        f"({record.dtype[large[0]]}); write Parquet, or LAZ."
                    )
                stream.write(
                    _ply_header(record.dtype, num_points, crs.to_wkt() if crs is not None else "").encode()
                )
            for name, values in zip(names, columns.values(), strict=True):
                record[name] = values
            stream.write(record.tobytes())
            sizes.append(len(record))
    return sizes


def _ply_names(columns: Columns) -> list[str]:
    """PLY ends a name at white space."""
    names: list[str] = []
    for name in columns:
        plain = re.sub(r"\s+", "_", name)
        names.append(plain if plain not in names else f"{plain}_{len(names)}")
    return names


def _ply_header(dtype: np.dtype, num_points: int, crs: str) -> str:
    properties = [f"property {_PLY_TYPES[dtype[name].str[1:]]} {name}" for name in dtype.names or ()]
    comment = [f"comment crs: {' '.join(crs.split())}"] if crs else []
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        *comment,
        f"element vertex {num_points}",
        *properties,
        "end_header",
    ]
    return "\n".join(lines) + "\n"


def _read_ply(part: Path, sizes: Sequence[int]) -> Iterator[Columns]:
    """What was written above, as many points at a time."""
    kinds = {text: kind for kind, text in _PLY_TYPES.items()}
    with part.open("rb") as stream:
        fields = []
        while (line := stream.readline().split()) != [b"end_header"]:
            if line[0] == b"property":
                fields.append((line[2].decode(), f"<{kinds[line[1].decode()]}"))
        dtype = np.dtype(fields)
        for size in sizes:
            record = np.frombuffer(stream.read(size * dtype.itemsize), dtype)
            yield {name: record[name] for name in dtype.names or ()}
