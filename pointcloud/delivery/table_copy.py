"""The labelled cloud as PLY or Parquet: every point with every column of the scan, its labels, and its CRS.

Scans of any format come here. VLRs, EVLRs and the header's other fields have no place in these formats; LAS and LAZ
keep them. As there, a file is read back and compared with the scan before it gets its final name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Labels:
    """What is written of all points of a scan, P of them.

    Attributes:
        codes: (P,) uint8.
        confidence: (P,) float in [0, 1].
        measures: (P,) uint8 each, in the steps of the dimension.
        options: which points may change and what is kept.
        noise: (P,) uint8, which points are noise; None: none of them.
    """

    codes: np.ndarray
    confidence: np.ndarray
    measures: Mapping[AddedDimension, np.ndarray]
    options: LabelOptions
    noise: np.ndarray | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _LabelledChunk:
    """The columns of some points of the labelled cloud, and the names of those that labelling wrote."""

    columns: Columns
    written: tuple[str, ...]


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
        out_uri: where the cloud appears once it is complete and proven.
        codes: (P,) uint8, the predicted classification.
        confidence: (P,) float in [0, 1], written as a column of 32-bit floats.
        options: which points may change, and what is kept of the delivered classes.
        measures: further columns, (P,) uint8 each, in the steps of the dimension.
        noise: (P,) uint8, which points are noise and keep their class, see `LabelOptions.new_codes`.

    Returns:
        The number of points written with each class code, and the proof that all else is the scan's.

    Raises:
        ScanError: the scan cannot be read, its points are not P, or PLY cannot hold one of its columns.
        PointloomError: what was written differs from the scan (nothing is kept then).
    """
    scan = read_stored(scan_uri)
    labels = _Labels(codes=codes, confidence=confidence, measures=measures, options=options, noise=noise)
    with files.staged(out_uri) as local_path:
        chunks = _labelled_chunks(scan, labels)
        first = next(chunks, None)
        if first is None:
            raise ScanError(f"scan {scan_uri!r} holds no points; leave it out or deliver it again.")
        tables = (chunk.columns for chunk in chain([first], chunks))
        if out_uri.lower().endswith(".ply"):
            comments = [*scan.comments, labelled_comment(property_names(first.written))]
            sizes = write_ply(local_path, len(codes), tables, scan.header.crs, comments)
            copied = read_written(local_path, sizes)
        else:
            _write_parquet(local_path, tables, scan.header.crs)
            copied = _read_parquet(local_path)
        counts = _compare(scan_uri, _labelled_chunks(scan, labels), copied)
        proof = _proof(
            scan,
            out_uri,
            num_points=len(codes),
            names=tuple(first.columns),
            content=files.content_hash(str(local_path)),
        )
    return Written(counts, proof)


def _labelled_chunks(scan: StoredScan, labels: _Labels) -> Iterator[_LabelledChunk]:
    start, num_points = 0, len(labels.codes)
    for stored, delivered in scan.chunks():
        now = slice(start, start + len(next(iter(stored.values()))))
        start = now.stop
        if start <= num_points:
            yield _label(scan, stored, delivered, labels, now)
    if start != num_points:
        raise ScanError(f"scan {scan.header.uri!r} has {start} points, expected {num_points}.")


def _label(
    scan: StoredScan, stored: Columns, delivered: np.ndarray | None, labels: _Labels, now: slice
) -> _LabelledChunk:
    """Label the points `now` of a scan, whose columns are `stored` and whose class codes `delivered`."""
    codes, confidence, options = labels.codes[now], labels.confidence[now], labels.options
    before = np.full(len(codes), columns.NO_CLASS, np.uint8) if delivered is None else delivered
    noise = None if labels.noise is None else labels.noise[now]
    labelled = _with_classes(stored, options.new_codes(before, codes, confidence, scan.no_class, noise))
    if options.keep_original and delivered is not None:
        # If a labelled cloud is labelled again, the classes first delivered count.
        labelled.setdefault(free_name(ORIGINAL.name, labelled, scan.ours), before)
    added = {CONFIDENCE: confidence.astype(np.float32)}
    added |= {d: values[now] * np.float32(d.step or 1) for d, values in labels.measures.items()}
    for dimension, values in added.items():
        labelled[free_name(dimension.name, labelled, scan.ours)] = values
    new = [name for name in labelled if name not in stored]
    written = dict.fromkeys((_CLASS, *sorted(scan.ours), *new))
    return _LabelledChunk(columns=labelled, written=tuple(written))


def _compare(scan_uri: str, wanted: Iterator[_LabelledChunk], copied: Iterator[Columns]) -> np.ndarray:
    """Compare what was to be written with what was, byte by byte; (256,) int64, the points of each class code.

    Raises:
        PointloomError: they differ.
    """
    counts = np.zeros(256, np.int64)
    for chunk, copy in zip(wanted, copied, strict=True):
        counts += np.bincount(chunk.columns[_CLASS], minlength=256)
        for (name, values), copied_values in zip(chunk.columns.items(), copy.values(), strict=True):
            if np.ascontiguousarray(values).tobytes() != np.ascontiguousarray(copied_values).tobytes():
                raise PointloomError(
                    f"the labelled copy of {scan_uri!r} would differ in dimension {name}; nothing was "
                    "written, please report this scan."
                )
    return counts


def _proof(scan: StoredScan, out_uri: str, *, num_points: int, names: tuple[str, ...], content: str) -> Proof:
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
        content=f"blake2b:{content}",
    )


def _with_classes(stored: Columns, codes: np.ndarray) -> Columns:
    """The columns with other classes, in the place of those of that name, or after the others."""
    class_names, replaced = _class_names(stored), _replaced(stored)
    labelled: Columns = {}
    for name, values in stored.items():
        if class_names and name == class_names[0]:
            labelled[_CLASS] = codes
        if name != replaced:
            labelled[name] = values
    labelled.setdefault(_CLASS, codes)
    return labelled


def _class_names(names: Columns | tuple[str, ...]) -> list[str]:
    """Names that mean the classification, as `columns` compares names."""
    return [name for name in names if columns.plain_name(name) == _CLASS]


def _replaced(names: Columns | tuple[str, ...]) -> str | None:
    """The column of that name, whatever its spelling: whoever reads the copy must not find delivered classes there."""
    class_names = _class_names(names)
    return _CLASS if _CLASS in class_names else next(iter(class_names), None)


def _write_parquet(local_path: Path, chunks: Iterator[Columns], crs: CRS | None) -> None:
    writer: pq.ParquetWriter | None = None
    try:
        for chunk in chunks:
            table = pa.table(chunk)
            if writer is None:
                known = {"pointloom.crs": crs.to_wkt()} if crs is not None else {}
                writer = pq.ParquetWriter(local_path, table.schema.with_metadata(known), compression="zstd")
            writer.write_table(table.cast(writer.schema), row_group_size=CHUNK_POINTS)
    finally:
        if writer is not None:
            writer.close()


def _read_parquet(local_path: Path) -> Iterator[Columns]:
    with pq.ParquetFile(local_path) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number)
            yield {name: table[name].to_numpy() for name in table.column_names}
