"""Whether confidence and review list find the errors, on the places that `benchmarks.by_place --out` left out.

    python -m benchmarks.by_place --data FOLDER --cache FOLDER --out RUNS --folds 4
    python -m benchmarks.trust --runs RUNS --data FOLDER --cache FOLDER

Each fold's network labels tiles of the places that it never saw. Of each tile: the share of points that are right, the
mean confidence, and how far its points lie from the training in the network's last features (`models.familiarity`). The
temperature and the limits of the review list are fitted on half of the places and judged on the other half, and the
other way round. Ends with one JSON line: the expected calibration error (15 bins, each place counting alike), the share
of the tiles with an overall accuracy below 0.7 that are listed, and the share of all others that are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import by_place
from benchmarks.places import PLACES
from models.familiarity import learn_familiarity
from models.predictor import Predictor
from models.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from pointcloud import markdown
from pointcloud.blocks.block import Block
from pointcloud.dataset.manifest import manifest_of
from pointcloud.dataset.preprocessing import PreprocessConfig
from pointcloud.dataset.store import read_blocks
from pointcloud.errors import PointloomError
from pointcloud.labelling.measures import class_and_confidence
from pointcloud.labels import FIRST_SET, IGNORE, LabelScheme
from pointcloud.storage import ledger

FAILING = 0.7
_BINS = 15
_LEAST_POINTS = 30
_KEPT_POINTS = 200
_TEMPERATURES = np.geomspace(0.3, 6.0, 60)

Records = dict[str, dict[str, ledger.Record]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """A tile of a place that its network never saw.

    Attributes:
        place: whose.
        accuracy: share of its points that are right.
        distance: mean, from the training; 1 is usual there.
        logits: (n, C) of some of its points; right: (n,) bool, whether their class is one that the code allows.
    """

    place: str
    accuracy: float
    distance: float
    logits: np.ndarray
    right: np.ndarray

    def confidence(self, temperature: float) -> float:
        """Mean over its points."""
        return float(class_and_confidence(self.logits / np.float32(temperature))[1].mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """When a tile is on the review list: its confidence is lower, or its distance is larger."""

    temperature: float
    confidence: float
    distance: float

    def lists(self, tile: Tile) -> bool:
        """Whether somebody should look at it."""
        return tile.confidence(self.temperature) < self.confidence or tile.distance > self.distance


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; the exit status. Bad input is one sentence and status 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", required=True, type=Path, metavar="FOLDER", help="of by_place --out")
    parser.add_argument("--data", required=True, type=Path, metavar="FOLDER", help="of the shared scans")
    parser.add_argument("--cache", required=True, type=Path, metavar="FOLDER", help="as of by_place")
    parser.add_argument("--tiles", type=int, default=30, help="of each place, at most")
    parser.add_argument(
        "--blocks", type=int, default=12, help="of each training place that the distance is learnt from"
    )
    parser.add_argument(
        "--into",
        metavar="FOLDER",
        help="checkpoint trained on all places, which gets the temperature and the limit",
    )
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    try:
        tiles = [tile for fold in sorted(options.runs.glob("fold-*")) for tile in tiles_of(fold, options)]
        if len({tile.place for tile in tiles}) < 2:
            raise PointloomError(
                f"{str(options.runs)!r} has no checkpoints of two places or more; run by_place --out."
            )
        record = judge(tiles)
        if options.into is not None:
            complete(options.into, fit(tiles), options)
    except PointloomError as error:
        print(f"trust: {error}", file=sys.stderr)
        return 2
    print(json.dumps(record))
    return 0


def complete(uri: str, limits: Limits, options: argparse.Namespace) -> None:
    """Write into a checkpoint what its training looks like, and the temperature and the limit found here."""
    checkpoint = read_checkpoint(uri)
    places = checkpoint.provenance.get("trained_on", list(PLACES))
    blocks = _blocks_of(checkpoint, places, options)
    known = learn_familiarity(
        checkpoint, [block for place in places for block in blocks.draw(place, options.blocks)]
    )
    if known.familiarity is not None and np.isfinite(limits.distance):
        known = replace(known, familiarity=replace(known.familiarity, limit=limits.distance))
    save_checkpoint(uri, replace(known, temperature=limits.temperature))


def _blocks_of(checkpoint: Checkpoint, places: Sequence[str], options: argparse.Namespace) -> _Blocks:
    config = PreprocessConfig(
        block_config=replace(checkpoint.block_config, overlap=2),
        scheme=checkpoint.label_scheme,
        rule=by_place.NOTHING_HELD_OUT,
        required=checkpoint.features,
    )
    records = by_place.cut_places(places, options.data, options.cache, config)
    return _Blocks(by_place.blocks_folder(options.cache, config), records, config)


def tiles_of(fold: Path, options: argparse.Namespace) -> list[Tile]:
    """The tiles of the places that a fold left out, as its network labels them."""
    checkpoint = read_checkpoint(str(fold))
    left_out, trained_on = (checkpoint.provenance[name] for name in ("left_out", "trained_on"))
    blocks = _blocks_of(checkpoint, [*left_out, *trained_on], options)
    training = [block for place in trained_on for block in blocks.draw(place, options.blocks)]
    known = learn_familiarity(checkpoint, training)
    return [
        tile for place in left_out for tile in label_tiles(place, known, blocks.draw(place, options.tiles))
    ]


@dataclass(frozen=True, slots=True)
class _Blocks:
    folder: Path
    records: Records
    config: PreprocessConfig

    def draw(self, place: str, number: int) -> list[Block]:
        """Some blocks of the unshifted grid with labels, the same ones each time."""
        blocks = read_blocks(str(self.folder), manifest_of(self.records[place], self.config))
        whole = [block for block in blocks if block.shift == (0, 0) and _num_labelled(block) >= _LEAST_POINTS]
        order = np.random.default_rng(0).permutation(len(whole))[:number]
        return [whole[n] for n in order]


def _num_labelled(block: Block) -> int:
    return 0 if block.label is None else int(np.count_nonzero(block.label[block.is_core] != IGNORE))


def label_tiles(place: str, checkpoint: Checkpoint, blocks: Sequence[Block]) -> list[Tile]:
    """Each block as a tile that is labelled and judged."""
    far: list[float] = []

    def look(block: Block, distances: np.ndarray) -> None:
        far.append(float(distances[block.is_core].mean()))

    tiles: list[Tile] = []
    for block, logits in Predictor(checkpoint).logits(blocks, look):
        assert block.label is not None
        labelled = np.flatnonzero(block.is_core & (block.label != IGNORE))
        right = is_right(logits[labelled].argmax(axis=1), block.label[labelled], checkpoint.label_scheme)
        kept = np.linspace(0, len(labelled) - 1, min(_KEPT_POINTS, len(labelled))).astype(np.int64)
        tiles.append(
            Tile(
                place=place,
                accuracy=float(right.mean()),
                distance=far[len(tiles)],
                logits=logits[labelled[kept]],
                right=right[kept],
            )
        )
    return tiles


def is_right(predicted: np.ndarray, labels: np.ndarray, scheme: LabelScheme) -> np.ndarray:
    """(P,) bool, whether class indices (P,) are what labels (P,) of `LabelScheme.to_labels` allow."""
    right: np.ndarray = predicted == labels
    for number, indices in enumerate(scheme.sets):
        right |= (labels == FIRST_SET - number) & np.isin(predicted, indices)
    return right


def judge(tiles: Sequence[Tile]) -> dict[str, Any]:
    """The record that is printed, after the table by place: each half of the places by what the other half says."""
    places = [place for place in PLACES if any(tile.place == place for tile in tiles)]
    listed: dict[str, list[tuple[bool, bool]]] = {place: [] for place in places}
    errors: list[float] = []
    confident: dict[str, float] = {}
    for half in (0, 1):
        here, there = (
            [tile for tile in tiles if places.index(tile.place) % 2 == side] for side in (half, 1 - half)
        )
        limits = fit(there)
        print(f"limits from the other half: {limits}", flush=True)
        errors.append(calibration_error(here, limits.temperature))
        for tile in here:
            listed[tile.place].append((tile.accuracy < FAILING, limits.lists(tile)))
        for place in {tile.place for tile in here}:
            own = [tile.confidence(limits.temperature) for tile in here if tile.place == place]
            confident[place] = float(np.mean(own))
    print(table(places, tiles, listed, confident), flush=True)
    failing, is_listed = np.array([pair for pairs in listed.values() for pair in pairs]).T
    return {
        "calibration_error": round(float(np.mean(errors)), 4),
        "calibration_error_before": round(calibration_error(tiles, 1.0), 4),
        "failing_tiles_found": _share(is_listed[failing]),
        "good_tiles_listed": _share(is_listed[~failing]),
        "tiles": len(failing),
        "failing_tiles": int(failing.sum()),
        "limits": str(fit(tiles)),
    }


def _share(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None


def fit(tiles: Sequence[Tile]) -> Limits:
    """The temperature, and the limits that find nine tenths of the failing tiles for as few others as possible."""
    temperature = float(min(_TEMPERATURES, key=lambda t: calibration_error(tiles, float(t))))
    sure = np.array([tile.confidence(temperature) for tile in tiles])
    far = np.array([tile.distance for tile in tiles])
    failing = np.array([tile.accuracy < FAILING for tile in tiles])
    best = (2.0, 0.0, float("inf"))
    for below in np.unique(np.quantile(sure, np.linspace(0, 1, 41))):
        for beyond in (*np.unique(np.quantile(far, np.linspace(0, 1, 41))), np.inf):
            listed = (sure < below) | (far > beyond)
            missed = 0.9 - listed[failing].mean() if failing.any() else 0.0
            # Below nine tenths, each failing tile that is missed counts more than all others that are listed.
            cost = float(listed[~failing].mean() if (~failing).any() else 0.0) + 10 * max(missed, 0.0)
            best = min(best, (cost, float(below), float(beyond)))
    return Limits(temperature=temperature, confidence=best[1], distance=best[2])


def calibration_error(tiles: Iterable[Tile], temperature: float) -> float:
    """|confidence − share of right points|, the mean over bins of confidence; every place counts alike."""
    by_place: dict[str, list[Tile]] = {}
    for tile in tiles:
        by_place.setdefault(tile.place, []).append(tile)
    sums = np.zeros((3, _BINS))
    for of_place in by_place.values():
        logits = np.concatenate([tile.logits for tile in of_place]) / np.float32(temperature)
        right = np.concatenate([tile.right for tile in of_place])
        sure = class_and_confidence(logits)[1]
        bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
        for row, values in enumerate((np.ones(len(sure)), sure, right)):
            sums[row] += np.bincount(bins, values, _BINS) / len(sure)
    _, sure_of, right_of = sums
    return float(np.abs(sure_of - right_of).sum() / len(by_place))


def table(
    places: Sequence[str],
    tiles: Sequence[Tile],
    listed: dict[str, list[tuple[bool, bool]]],
    confident: dict[str, float],
) -> str:
    """By place: how right, how sure, how far, and what the review list makes of it."""
    rows = []
    for place in places:
        own = [tile for tile in tiles if tile.place == place]
        failing, is_listed = np.array(listed[place]).T
        rows.append(
            (
                place,
                PLACES[place].kind,
                f"{100 * np.mean([tile.accuracy for tile in own]):.1f}",
                f"{100 * confident[place]:.1f}",
                f"{np.mean([tile.distance for tile in own]):.2f}",
                f"{int((failing & is_listed).sum())} of {int(failing.sum())}",
                f"{int((~failing & is_listed).sum())} of {int((~failing).sum())}",
            )
        )
    heads = ["place", "kind", "overall", "confidence", "distance", "failing tiles listed", "others listed"]
    return "\n" + "\n".join(markdown.table(heads, rows, align="llrrrrr")) + "\n"


if __name__ == "__main__":
    sys.exit(main())
