"""One survey labelled as one file and as nine, their edges through roofs: figures, and a picture of where they differ.

    python -m benchmarks.segment_seams --checkpoint pretrained/airborne [--seam-figure FILE.png]

The survey is simulated. Each edge lies where most points of buildings are, within the middle of its range, so it cuts
roofs and no courtyards. The nine files are labelled with their neighbours and, for comparison, each alone.
"""

from __future__ import annotations

import argparse
import json
import struct
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import laspy
import numpy as np

from benchmarks.segmenting import codes_of
from models.weights.checkpoint import read_checkpoint
from pointcloud.labels import LabelScheme
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig

BUILDING = 6
BESIDE_M = 2.0
_RANGES = ((0.2, 0.45), (0.55, 0.8))  # of the survey's extent, in which an edge is looked for
_BIN_M = 1.0
_CELLS, _ZOOM, _GAP = 220, 2, 12  # cells of a picture's edge, pixels of a cell and between pictures
_RED, _LINE, _PAPER = (214, 39, 40), (0, 0, 0), (255, 255, 255)


@dataclass(frozen=True)
class Seams:
    """A survey labelled three ways.

    Attributes:
        xyz: (P, 3) coordinates.
        whole, nine, alone: (P,) codes of the survey as one file, as nine, and as nine each without its neighbours.
        edges: x and y of the edges between files, two each.
    """

    xyz: np.ndarray
    whole: np.ndarray
    nine: np.ndarray
    alone: np.ndarray
    edges: tuple[np.ndarray, np.ndarray]

    def near(self) -> np.ndarray:
        """(P,) bool, the points within 2 m of an edge."""
        return np.logical_or.reduce(
            [np.abs(self.xyz[:, axis] - at) < BESIDE_M for axis in (0, 1) for at in self.edges[axis]]
        )

    def report(self) -> str:
        """The figures, in words."""
        differs, alone, near = self.nine != self.whole, self.alone != self.whole, self.near()
        roofs = int(np.count_nonzero(near & (self.whole == BUILDING)))
        return (
            f"{len(self.whole):,} points as one file and as nine: {1 - differs.mean():.4%} of the labels agree "
            f"({np.count_nonzero(differs):,} differ); {1 - alone.mean():.4%} where each file is alone, without its "
            f"neighbours' points ({np.count_nonzero(alone):,} differ)\n"
            f"within {BESIDE_M:g} m of an edge: {np.count_nonzero(near):,} points, {roofs:,} of them labelled "
            f"building; {1 - differs[near].mean():.4%} agree, {1 - alone[near].mean():.4%} where each file is alone"
        )


def compare(
    checkpoint: str, folder: Path, size_m: float, points_per_m2: float, figure: Path | None = None
) -> Seams:
    """Label a simulated survey whole, as nine, and as nine alone; print the figures, draw the picture if asked to."""
    config = SurveyConfig(seed=1, tiles=(1, 1), tile_size_m=size_m, points_per_m2=points_per_m2)
    (scan,) = write_survey(config, folder / "whole")
    edges = roof_edges(scan)
    files, places = cut_in_nine(scan, folder / "nine", edges)
    whole = codes_of([scan], checkpoint, folder / "labelled-whole")[0]
    found = []
    for across in (True, False):
        codes = np.empty_like(whole)
        out = folder / f"labelled-nine-{across}"
        for place, of_file in zip(places, codes_of(files, checkpoint, out, across), strict=True):
            codes[place] = of_file
        found.append(codes)
    seams = Seams(laspy.read(scan).xyz, whole, found[0], found[1], edges)
    print(f"\n{seams.report()}", flush=True)
    if figure:
        scheme = read_checkpoint(checkpoint, weights=False).label_scheme
        figure.write_bytes(png(draw(seams, scheme)))
    return seams


def roof_edges(scan: Path) -> tuple[np.ndarray, np.ndarray]:
    """Two x and two y that run through roofs, by the classes that a scan is delivered with.

    Raises:
        ValueError: an edge that has no building on one of its sides.
    """
    las = laspy.read(scan)
    roofs = np.asarray(las.classification) == BUILDING
    edges = []
    for values in (np.asarray(las.x), np.asarray(las.y)):
        low, extent, built = values.min(), np.ptp(values), values[roofs]
        found = []
        for start, end in _RANGES:
            bins = np.arange(low + start * extent, low + end * extent, _BIN_M)
            counts = np.histogram(built, bins)[0]
            at = bins[np.argmax(counts)] + _BIN_M / 2
            sides = [np.count_nonzero((built - at) * side > 0) for side in (-1, 1)]
            beside = [
                np.count_nonzero(((built - at) * side > 0) & (np.abs(built - at) < BESIDE_M))
                for side in (-1, 1)
            ]
            if not min(*sides, *beside):
                raise ValueError(f"the edge at {at} runs through no roof; take a larger survey")
            found.append(at)
        edges.append(np.array(found))
    return edges[0], edges[1]


def cut_in_nine(
    scan: Path, folder: Path, edges: tuple[np.ndarray, np.ndarray]
) -> tuple[list[Path], list[np.ndarray]]:
    """Nine files of a scan, cut at two x and two y, and the places of their points in it."""
    folder.mkdir()
    las = laspy.read(scan)
    column, row = (
        np.searchsorted(at, np.asarray(values), "right")
        for at, values in zip(edges, (las.x, las.y), strict=True)
    )
    paths, places = [], []
    for n in range(9):
        place = np.flatnonzero(column + 3 * row == n)
        piece = laspy.LasData(las.header, las.points[place])
        paths.append(folder / f"{n}.laz")
        places.append(place)
        piece.write(paths[-1])
    return paths, places


def draw(seams: Seams, scheme: LabelScheme) -> np.ndarray:
    """(H, W, 3) uint8: labels of the whole, labels of nine (red: other ones), nine alone (red: other ones, on heights).

    Seen from above, the highest point of each cell; but a point that differs is in front of all. Lines: edges.
    """
    colours = np.full((256, 3), 190, np.uint8)
    for label in scheme.classes:
        colours[label.code] = [int(label.colour[at : at + 2], 16) for at in (1, 3, 5)]
    low, high = np.percentile(seams.xyz[:, 2], [1, 99])
    grey = np.clip(90 + 150 * (seams.xyz[:, 2] - low) / max(high - low, 1e-9), 90, 240).astype(np.uint8)
    panels = [
        _panel(seams, colours[seams.whole], np.zeros(len(seams.whole), bool)),
        _panel(seams, colours[seams.nine], seams.nine != seams.whole),
        _panel(seams, np.repeat(grey[:, None], 3, axis=1), seams.alone != seams.whole),
    ]
    gap = np.full((panels[0].shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)


def _panel(seams: Seams, colours: np.ndarray, differs: np.ndarray) -> np.ndarray:
    low = seams.xyz[:, :2].min(axis=0)
    step = np.ptp(seams.xyz[:, :2], axis=0).max() / (_CELLS - 1)

    def cell(values: np.ndarray, axis: int) -> np.ndarray:
        return ((values - low[axis]) / step).astype(int)

    order = np.lexsort((seams.xyz[:, 2], differs))
    x, y = (cell(seams.xyz[order, axis], axis) for axis in (0, 1))
    last = np.full(_CELLS * _CELLS, -1)
    np.maximum.at(last, y * _CELLS + x, np.arange(len(order)))
    seen = order[np.maximum(last, 0)]
    picture = np.where(differs[seen, None], np.array(_RED, np.uint8), colours[seen])
    picture[last < 0] = _PAPER
    picture = picture.reshape(_CELLS, _CELLS, 3).repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)
    for at in cell(seams.edges[0], 0):
        picture[::2, _ZOOM * at] = _LINE
    for at in cell(seams.edges[1], 1):
        picture[_ZOOM * at, ::2] = _LINE
    return picture[::-1]


def png(picture: np.ndarray) -> bytes:
    """A PNG file of (H, W, 3) uint8."""
    height, width, _ = picture.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
        + chunk(b"IEND", b"")
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", required=True)
    add("--seam-size-m", type=float, default=135.0, help="edge of the survey that is cut in nine")
    add("--points-per-m2", type=float, default=10.0)
    add("--seam-figure", type=Path, help="a PNG file to draw")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="pointloom-seams-") as folder:
        seams = compare(
            options.checkpoint, Path(folder), options.seam_size_m, options.points_per_m2, options.seam_figure
        )
    print(json.dumps({"seam_agreement": round(float((seams.nine == seams.whole).mean()), 6)}))


if __name__ == "__main__":
    main()
