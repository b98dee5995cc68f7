"""Labels every LAS and LAZ file of a folder tree, proves each copy, opens it with another reader; prints a table.

    python -m benchmarks.lossless FOLDER [--checkpoint pretrained/airborne] [--seed 0]

Labels are drawn at random unless a checkpoint is given: what is asked is what becomes of the file. The copies are
written by what the segment flow writes with, which proves them; then LASzip's own C++ library, which shares no code
with laspy and lazrs, reads scan and copy, and their records are compared as bytes. It needs the `dev` extra. Ends
with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import laspy
import laszip
import numpy as np

from pointcloud.delivery.las_copy import output_name, write_labelled
from pointcloud.delivery.proof import Proof
from pointcloud.errors import PointloomError
from pointcloud.formats.las import SUFFIXES, open_scan
from pointcloud.labelling.options import LabelOptions

CODES = np.array([2, 5, 6, 9], np.uint8)
_CHUNK_POINTS = 1 << 18
_MAY_DIFFER = {
    "number_of_variable_length_records", "offset_to_point_data", "point_data_record_length",
    "start_of_first_extended_variable_length_record", "start_of_waveform_data_packet_record",
    "number_of_extended_variable_length_records",
}  # fmt: skip
# Of every copy, or of every one that is LAZ.
_USUAL = (
    "classification", "extra dimensions confidence", "extra bytes VLR, record length, offsets within", "LASzip VLR"
)  # fmt: skip
_COLUMNS = (
    "file", "LAS", "point format", "points", "VLRs / EVLRs", "extra dimensions", "RGB / NIR", "waveforms",
    "also changed", "laszip", "result",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What became of one file: the cells of its line, and whether it was kept; None: unreadable."""

    cells: tuple[str, ...]
    kept: bool | None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", help="label with it, through the actor of the flow; None: at random")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = []
    print(f"| {' | '.join(_COLUMNS)} |\n|{' --- |' * len(_COLUMNS)}")
    for row in rows_of(options.folder, options.checkpoint, options.seed):
        rows.append(row)
        print(f"| {' | '.join(row.cells)} |", flush=True)
    summary = {
        "files": len(rows),
        "kept": sum(row.kept is True for row in rows),
        "lost": sum(row.kept is False for row in rows),
        "unreadable": sum(row.kept is None for row in rows),
    }
    print(f"\n{json.dumps(summary)}")
    return 1 if summary["lost"] else 0


def rows_of(folder: Path, checkpoint: str | None = None, seed: int = 0) -> Iterator[Row]:
    """One row for each LAS and LAZ file below a folder, by name."""
    rng = np.random.default_rng(seed)
    for scan in sorted(path for path in folder.rglob("*") if path.name.lower().endswith(SUFFIXES)):
        with tempfile.TemporaryDirectory(prefix="pointloom-lossless-") as name:
            yield _row(scan, folder, Path(name) / output_name(scan.name), checkpoint, rng)


def _row(scan: Path, folder: Path, copy: Path, checkpoint: str | None, rng: np.random.Generator) -> Row:
    name = f"`{scan.relative_to(folder)}`"
    blank = ("",) * (len(_COLUMNS) - 2)
    try:
        with open_scan(str(scan)) as reader:
            header = reader.header
        num = header.point_count
        # A truncated file may promise more than it has, which shows as it is read.
        if checkpoint is None:
            codes, confidence = rng.choice(CODES, num), rng.random(num, np.float32)
        else:
            codes, confidence = _labels(scan, checkpoint, copy.parent / "by-network")
        proof = write_labelled(str(scan), str(copy), codes, confidence, LabelOptions()).proof
    except PointloomError as error:
        if "would differ" in str(error):
            return Row((name, *blank, f"**lost**: {error}"), False)
        return Row((name, *blank, f"refused: {str(error).replace(str(folder), '…')}"), None)
    difference = difference_by_laszip(scan, copy)
    return Row((name, *_facts(header, proof), difference or "the same", "kept"), difference is None)


def _facts(header: laspy.LasHeader, proof: Proof) -> tuple[str, ...]:
    names = set(header.point_format.dimension_names)
    colours = [text for text, dimension in (("RGB", "red"), ("NIR", "nir")) if dimension in names]
    also = [f"{what} ({why})" for what, why in proof.changed.items() if not what.startswith(_USUAL)]
    return (
        str(header.version),
        str(header.point_format.id),
        f"{proof.points:,}",
        f"{proof.vlrs} / {proof.evlrs}",
        ", ".join(header.point_format.extra_dimension_names) or "–",
        ", ".join(colours) or "–",
        proof.waveforms.replace("none", "–"),
        "; ".join(also) or "–",
    )


def _labels(scan: Path, checkpoint: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Codes and confidences (P,) that the actor of the flow writes for a scan. Raises PointloomError."""
    from benchmarks.segment import local_segmenter

    segmenter, (to_do,) = local_segmenter([scan], checkpoint, folder)
    record = segmenter.work(to_do)
    if record.error:
        raise PointloomError(record.error)
    las = laspy.read(folder / record.path)
    return np.asarray(las.classification), np.asarray(las["confidence"], np.float32)


def difference_by_laszip(scan: Path, copy: Path) -> str | None:
    """What differs between a scan and its labelled copy in the eyes of LASzip's own library; None if nothing.

    Records are compared as bytes, all of the scan's but the bits of the class; what labelling added comes after them.
    """
    with scan.open("rb") as mine, copy.open("rb") as other:
        try:
            files = [laszip.LasUnZipper(file) for file in (mine, other)]
        except laszip.laszip_core.LaszipError as error:
            return f"cannot read it: {error}"
        headers = [file.header for file in files]
        for field in dir(headers[0]):
            if field.startswith("_") or field in _MAY_DIFFER:
                continue
            if _field(headers[0], field) != _field(headers[1], field):
                return f"header field {field}"
        long = headers[0].point_data_format >= 6
        place, mask = (16, 0x00) if long else (15, 0xE0)  # of the class, and what else is in its byte
        num = headers[0].extended_number_of_point_records or headers[0].number_of_point_records
        sizes = [header.point_data_record_length for header in headers]
        for at in range(0, num, _CHUNK_POINTS):
            records = []
            for file, size in zip(files, sizes, strict=True):
                raw = bytearray(min(_CHUNK_POINTS, num - at) * size)
                file.decompress_into(raw)
                records.append(np.frombuffer(raw, np.uint8).reshape(-1, size)[:, : sizes[0]].copy())
                records[-1][:, place] &= mask
            wrong = np.flatnonzero((records[0] != records[1]).any(axis=0))
            if len(wrong):
                return f"byte {wrong[0]} of the point records"
    return None


def _field(header: Any, name: str) -> bytes:
    """A header field as bytes; none where the file has text that is not UTF-8, which the bindings cannot give."""
    try:
        return np.asarray(getattr(header, name)).tobytes()
    except UnicodeDecodeError:
        return b""


if __name__ == "__main__":
    sys.exit(main())
