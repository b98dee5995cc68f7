"""Scores of a checkpoint on hills: a labelled scan as it is and laid on random hills, on every point.

    python -m benchmarks.hills --checkpoint FOLDER --scan FILE.laz [--slopes 0.1 0.2 0.4]

The hills are sums of plane waves 20 to 300 m long, the longer the higher, of the slopes asked for (root mean square,
metres a metre): other ground than training may lay its blocks on (`models.data.relief`), with everything on it upright
as that does too. Real hills differ in more than their slope, so this finds what fails there, and proves nothing else.
Ends with one JSON line: mIoU, overall accuracy and IoU by class for each slope.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import laspy
import numpy as np
import torch

from benchmarks.accuracy import score, summary
from benchmarks.forest import class_indices
from benchmarks.segmenting import label_scans
from models.predictor import Predictor
from models.weights.checkpoint import read_checkpoint
from pointcloud.errors import PointloomError
from pointcloud.formats.las import SUFFIXES
from pointcloud.formats.reader import read_cloud
from pointcloud.storage.inputs import Source

_WAVELENGTHS_M = (20.0, 300.0)
_WAVES = 200


def main(argv: list[str] | None = None) -> int:
    """Label and score; the exit status. Bad input is one sentence and status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, metavar="FOLDER")
    parser.add_argument("--scan", required=True, metavar="FILE", help="LAS or LAZ, labelled, in metres")
    parser.add_argument("--slopes", nargs="+", type=float, default=[0.1, 0.2, 0.4])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    try:
        checkpoint = read_checkpoint(options.checkpoint)
        if not options.scan.lower().endswith(SUFFIXES):
            raise PointloomError(f"scan {options.scan!r} must be a LAS or LAZ file.")
        predictor, scheme = Predictor(checkpoint), checkpoint.label_scheme
        truth = {"scan": class_indices(read_cloud(options.scan), scheme)}
        record = {}
        with tempfile.TemporaryDirectory(prefix="pointloom-hills-") as folder:
            for slope in (0.0, *options.slopes):
                copy = write_on_hills(options.scan, Path(folder) / "scan.laz", slope, options.seed)
                labels = label_scans(predictor, [Source(str(copy), "scan")])
                record[f"{slope:g}"] = summary(f"slopes of {slope:g}", score(labels, truth, scheme))
    except PointloomError as error:
        print(f"hills: {error}", file=sys.stderr)
        return 2
    print(json.dumps(record))
    return 0


def write_on_hills(scan: str, copy: Path, slope: float, seed: int) -> Path:
    """Write a copy of a LAS or LAZ scan in metres that lies on hills; its path."""
    las = laspy.read(scan)
    las.z = np.asarray(las.z) + hills(np.stack([las.x, las.y], axis=1), slope, seed)
    las.write(copy)
    return copy


def hills(xy: np.ndarray, slope: float, seed: int) -> np.ndarray:
    """Heights (N,) at xy (N, 2), metres, of a random ground with this root mean square of slopes."""
    random = np.random.default_rng(seed)
    shortest, longest = _WAVELENGTHS_M
    wavelength = shortest * (longest / shortest) ** random.random(_WAVES)
    angle, phase = 2 * np.pi * random.random((2, _WAVES))
    heights = np.zeros(len(xy))
    # Waves of one slope: a tenth as long, a tenth as high.
    steepest = slope * np.sqrt(2 / _WAVES)
    from_corner = xy - xy.min(axis=0)
    for length, towards, start in zip(wavelength, angle, phase, strict=True):
        along = from_corner @ [np.cos(towards), np.sin(towards)]
        heights += steepest * length / (2 * np.pi) * np.sin(2 * np.pi * along / length + start)
    return heights


if __name__ == "__main__":
    sys.exit(main())
