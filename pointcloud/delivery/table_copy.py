"""The labelled cloud as PLY or Parquet: every point with every column of the scan, its labels, and its CRS.

Scans of any format come here. VLRs, EVLRs and the header's other fields have no place in these formats; LAS and LAZ
keep them. Like those, a file is read back and compared with the scan before it takes its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyproj import CRS

from pointcloud.cloud import CHUNK_POINTS
from pointcloud.delivery.extra_dimensions import CONFIDENCE, ORIGINAL, AddedDimension, free_name
from pointcloud.delivery.proof import Proof, Written
from pointcloud.delivery.scan_columns import Columns, StoredScan, read_stored
from pointcloud.errors import PointloomError, ScanError
from pointcloud.formats import columns
from pointcloud.formats.ply import property_names, read_written, write_ply
from pointcloud.formats.ply_header import labelled_comment
from pointcloud.labelling.options import LabelOptions
from pointcloud.storage import files

SUFFIXES = (".ply", ".parquet")
_CLASS = "classification"


def write_exported(
    scan_uri: str,
    out_uri: str,
    codes: np.ndarray,
    confidence: np.ndarray,
    options: LabelOptions,
    measures: Mapping[AddedDimension, np.ndarray],
    noise: np.ndarray | None = None,
) -> Written:
    """Write a labelled cloud as PLY or Parquet, by the suffix of its URI.

    A scan without classes has none to keep: `keep_original` adds nothing then, and every point may change.

    Args:
        scan_uri: a scan of P points, of any format that the reader knows.

    Other args, returns and raises as `labelled.write_labelled`, and ScanError for what PLY cannot hold.
    """
    scan = read_stored(scan_uri)
    counts, names = np.zeros(256, np.int64), tuple[str, ...]()
    written: dict[str, None] = {}

    def labelled() -> Iterator[Columns]:
        at = 0
        for made, delivered in scan.chunks():
            now = slice(at, at + len(next(iter(made.values()))))
            at = now.stop
            if at <= len(codes):
                some = {dimension: values[now] for dimension, values in measures.items()}
                yield _label(
                    made, delivered, codes[now], confidence[now], some, options, scan, written,
                    None if noise is None else noise[now],
                )  # fmt: skip
        if at != len(codes):
            raise ScanError(f"scan {scan_uri!r} has {at} points, expected {len(codes)}.")

    with files.staged(out_uri) as part:
        if out_uri.lower().endswith(".ply"):

            def comments() -> list[str]:
                return [*scan.comments, labelled_comment(property_names(list(written)))]

            found = read_written(part, write_ply(part, len(codes), labelled(), scan.header.crs, comments))
        else:
            _write_parquet(part, labelled(), scan.header.crs)
            found = _read_parquet(part)
        for wanted, there in zip(labelled(), found, strict=True):
            counts += np.bincount(wanted[_CLASS], minlength=256)
            for name, there_values in zip(wanted, there.values(), strict=True):
                if (
                    np.ascontiguousarray(wanted[name]).tobytes()
                    != np.ascontiguousarray(there_values).tobytes()
                ):
                    raise PointloomError(
                        f"the labelled copy of {scan_uri!r} would differ in dimension {name}; nothing was "
                        "written, please report this scan."
                    )
            names = tuple(wanted)
        return Written(counts, _proof(scan, out_uri, part, len(codes), names))


def _proof(scan: StoredScan, out_uri: str, part: Path, num_points: int, names: tuple[str, ...]) -> Proof:
    changed, replaced = dict(scan.elsewhere), _replaced(scan.header.dimensions)
    instead = f", in place of {replaced!r}" if replaced not in (None, _CLASS) else ""
    if scan.comments and not out_uri.lower().endswith(".ply"):
        changed["comments"] = "have no place in this format"
    return Proof(
        points=num_points,
        dimensions=names,
        header_fields=(),
        vlrs=0,
        evlrs=0,
        waveforms=scan.waveforms,
        changed={_CLASS: f"the labels{instead}"} | changed,
        content=f"blake2b:{files.content_hash(str(part))}",
    )


def _label(
    stored: Columns, delivered: np.ndarray | None, codes: np.ndarray, confidence: np.ndarray,
    measures: Mapping[AddedDimension, np.ndarray], options: LabelOptions, scan: StoredScan, written: dict[str, None],
    noise: np.ndarray | None,
) -> Columns:  # fmt: skip
    """The columns of some points, n of them, of the labelled cloud; `written` takes the names of those that are new."""
    before = np.full(len(codes), columns.NO_CLASS, np.uint8) if delivered is None else delivered
    made = _with_classes(stored, options.new_codes(before, codes, confidence, scan.no_class, noise))
    added = {CONFIDENCE: confidence.astype(np.float32)}
    added |= {d: values * np.float32(d.step or 1) for d, values in measures.items()}
    written.update(dict.fromkeys((_CLASS, *sorted(scan.ours))))
    if options.keep_original and delivered is not None:
        name = free_name(ORIGINAL.name, made, scan.ours)
        # Of a cloud that is labelled again, what was delivered at first is what counts.
        made.setdefault(name, before)
        written[name] = None
    for dimension, values in added.items():
        name = free_name(dimension.name, made, scan.ours)
        made[name] = values
        written[name] = None
    return made


def _with_classes(stored: Columns, codes: np.ndarray) -> Columns:
    """The columns with other classes, in the place of those of that name, or after the others."""
    spelled, replaced = _spelled(stored), _replaced(stored)
    made: Columns = {}
    for name, values in stored.items():
        if spelled and name == spelled[0]:
            made[_CLASS] = codes
        if name != replaced:
            made[name] = values
    made.setdefault(_CLASS, codes)
    return made


def _spelled(names: Columns | tuple[str, ...]) -> list[str]:
    return [name for name in names if columns.plain_name(name) == _CLASS]


def _replaced(names: Columns | tuple[str, ...]) -> str | None:
    """The column of that name, whatever its spelling: whoever reads the copy must not find delivered classes there."""
    spelled = _spelled(names)
    return _CLASS if _CLASS in spelled else spelled[0] if spelled else None


def _write_parquet(part: Path, chunks: Iterator[Columns], crs: CRS | None) -> None:
    writer: pq.ParquetWriter | None = None
    try:
        for made in chunks:
            table = pa.table(made)
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
