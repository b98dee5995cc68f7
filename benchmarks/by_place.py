"""Scores on places that no training saw: leaves places out, trains on the others, and labels those left out.

    python -m benchmarks.by_place --data FOLDER --cache FOLDER [--folds 4 --steps 1500 --minutes 8 …]

Every place of `benchmarks.places` is left out once, alone or with a group of others (--folds), or only those of
--places, each alone. Blocks are cut once, by the preprocess flow's own code, into the cache; a fold is a choice of
places, so it costs its training and the labelling of what it left out. Both are the product's: recipes, training loop,
predictor, labelling. Ends with one JSON line.

A point counts as right when its class is one that its code allows. The IoU is of what the codes of a place tell apart:
where a code says "vegetation, low or high", both together are one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.airborne import BLOCKS, BLOCKS_PER_PLACE, FEATURES, NETWORK, PLAN
from benchmarks.places import PLACES, allowed, chosen_classes, folds_of, scheme_of, sources_of
from benchmarks.scan_training import Budget, cut_records, train_on_blocks
from benchmarks.segmenting import label_scans
from models.network.configurations import DeepGCNConfig
from models.predictor import Predictor
from models.recipes import RECIPES, TrainConfig
from models.recipes import recipe as find_recipe
from models.weights.checkpoint import Checkpoint, save_checkpoint
from pointcloud import markdown
from pointcloud.blocks.block import Block
from pointcloud.blocks.features import check_features, num_channels
from pointcloud.dataset.manifest import manifest_of
from pointcloud.dataset.preprocessing import PreprocessConfig
from pointcloud.dataset.splits import SplitRule
from pointcloud.errors import PointloomError
from pointcloud.formats.reader import read_cloud
from pointcloud.storage import ledger
from pointcloud.storage.inputs import Source

NOTHING_HELD_OUT = SplitRule(val_fraction=0.0)
_LEAST_LABELLED = 30
"""Points with a class that a block needs to be drawn for training."""


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data", required=True, type=Path, metavar="FOLDER", help="of the shared scans")
    add(
        "--cache",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="blocks that were cut, kept for later runs",
    )
    add("--out", type=Path, metavar="FOLDER", help="keep the checkpoint of each fold (default: none)")
    add("--places", nargs="+", choices=PLACES, metavar="NAME", help="left out, each alone (default: all)")
    add(
        "--without",
        nargs="+",
        default=[],
        choices=PLACES,
        metavar="NAME",
        help="neither trained on nor scored",
    )
    add("--folds", type=int, default=0, help="groups of places left out together; 0: each place alone")
    add("--only-fold", type=int, metavar="N", help="one of the folds, from 0")
    add("--classes", nargs="+", metavar="NAME", help="(default: without water and bridge deck)")
    add("--features", nargs="+", default=list(FEATURES), metavar="NAME", help="xyz first")
    add("--voxel-m", type=float, default=BLOCKS.voxel_size_m)
    add("--tile-m", type=float, default=BLOCKS.tile_size_m)
    add("--halo-m", type=float, default=BLOCKS.halo_m)
    add("--max-points", type=int, default=BLOCKS.max_points, help="of a block")
    add("--recipe", choices=RECIPES, default="modern")
    add("--plan", nargs="+", default=[], metavar="NAME=VALUE", help="fields of TrainConfig")
    add("--network", nargs="+", default=[], metavar="NAME=VALUE", help="fields of DeepGCNConfig")
    add("--steps", type=int, default=1500, help="of the optimizer, at most; in whole epochs")
    add("--minutes", type=float, help="of training at most, estimated from its first steps")
    add("--blocks", type=int, default=BLOCKS_PER_PLACE, help="of each place that an epoch takes, at most")
    add("--threads", type=int, default=2)
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; the exit status. Bad input is one sentence and status 2."""
    options = arguments(argv)
    torch.set_num_threads(options.threads)
    try:
        record = run(options)
    except PointloomError as error:
        print(f"by_place: {error}", file=sys.stderr)
        return 2
    print(json.dumps(record))
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train and score every fold; the record that is printed."""
    used = [place for place in PLACES if place not in options.without]
    folds = [[place] for place in options.places] if options.places else folds_of(used, options.folds)
    config, network, plan = settings(options)
    records = cut_places(used, options.data, options.cache, config)
    results: dict[str, dict[str, Any]] = {}
    train_seconds = 0.0
    for number, left_out in enumerate(folds):
        if options.only_fold not in (None, number):
            continue
        print(f"\nfold {number}: without {', '.join(left_out)}", flush=True)
        began = time.perf_counter()
        training = {name: records[name] for name in used if name not in left_out}
        checkpoint = train_fold(training, options, config, network, plan)
        train_seconds += time.perf_counter() - began
        if options.out is not None:
            kept = replace(checkpoint, provenance={"left_out": left_out, "trained_on": sorted(training)})
            save_checkpoint(str(options.out / f"fold-{number}"), kept)
        for place in left_out:
            results[place] = score_place(place, checkpoint, options.data, options.cache)
            print(f"  {place}: {results[place]}", flush=True)
    print(f"\n{table(results)}\n")
    scored = list(results.values())
    return {
        "miou": round(float(np.mean([result["miou"] for result in scored])), 4),
        "oa": round(float(np.mean([result["oa"] for result in scored])), 4),
        "lowest_oa": min(result["oa"] for result in scored),
        "points_per_second": round(sum(r["points"] for r in scored) / sum(r["seconds"] for r in scored)),
        "train_seconds": round(train_seconds, 1),
        "places": results,
        "options": {
            name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()
        },
    }


def settings(options: argparse.Namespace) -> tuple[PreprocessConfig, DeepGCNConfig, TrainConfig]:
    """How blocks are cut, but for the codes of their place, the network and its training.

    Raises:
        PointloomError: values that do not fit.
    """
    features = tuple(options.features)
    check_features(features)
    classes = chosen_classes(options.classes)
    blocks = replace(
        BLOCKS, tile_size_m=options.tile_m, halo_m=options.halo_m, voxel_size_m=options.voxel_m,
        max_points=options.max_points,
    )  # fmt: skip
    config = PreprocessConfig(
        block_config=blocks,
        scheme=scheme_of(classes),
        rule=NOTHING_HELD_OUT,
        required=features,
    )
    shape = NETWORK | _fields(options.network, DeepGCNConfig)
    network = DeepGCNConfig(in_channels=num_channels(features), num_classes=len(classes), **shape)
    ours = PLAN if options.recipe == "modern" else {}
    plan = find_recipe(options.recipe, **(ours | {"seed": options.seed} | _fields(options.plan, TrainConfig)))
    return config, network, plan


def _fields(given: Sequence[str], kind: type[DeepGCNConfig] | type[TrainConfig]) -> dict[str, Any]:
    """NAME=VALUE by name; values as JSON writes them, or text."""
    values: dict[str, Any] = {}
    for pair in given:
        name, _, text = pair.partition("=")
        names = [field.name for field in fields(kind)]
        if name not in names:
            raise PointloomError(
                f"{kind.__name__} has no field {name!r}; expected one of {', '.join(names)}."
            )
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values


def cut_places(
    places: Sequence[str], data: Path, cache: Path, config: PreprocessConfig
) -> dict[str, dict[str, ledger.Record]]:
    """Place -> scan -> the record of its blocks, which are in the cache or are cut into it."""
    folder = blocks_folder(cache, config)
    known = ledger.read_all(str(folder), "preprocess") if folder.is_dir() else {}
    records: dict[str, dict[str, ledger.Record]] = {}
    for name in places:
        place = PLACES[name]
        # Blocks hold what every feature is made from: other features need no other blocks.
        its_config = replace(config, required=())
        its_scheme = scheme_of(config.scheme.classes, [name])
        key = ledger.key_of(name, dict(place.scans), replace(its_config, scheme=its_scheme).to_dict())
        done = {scan: known[scan] for scan in place.scans if scan in known and known[scan].key == key}
        if len(done) < len(place.scans):
            began = time.perf_counter()
            with tempfile.TemporaryDirectory(prefix="pointloom-decoded-") as decoded:
                sources = sources_of(place, data, cache / "scans")
                done = cut_records(sources, its_config, folder, Path(decoded), key)
            print(f"cut {name}: {time.perf_counter() - began:.1f} s", flush=True)
        records[name] = done
    return records


def blocks_folder(cache: Path, config: PreprocessConfig) -> Path:
    """Where the blocks of these sizes and classes lie."""
    sizes, scheme = config.block_config.to_dict(), config.scheme
    return (
        cache / f"blocks-{ledger.key_of(sizes, list(scheme.names), [list(one) for one in scheme.sets])[:12]}"
    )


def train_fold(
    records: dict[str, dict[str, ledger.Record]],
    options: argparse.Namespace,
    config: PreprocessConfig,
    network: DeepGCNConfig,
    plan: TrainConfig,
) -> Checkpoint:
    """The network after its last epoch on the blocks of these places."""
    manifest = manifest_of({scan: r for of_place in records.values() for scan, r in of_place.items()}, config)
    place_of = {scan: place for place, of_place in records.items() for scan in of_place}
    checkpoint = train_on_blocks(
        str(blocks_folder(options.cache, config)),
        manifest,
        config,
        network,
        plan,
        Budget(options.steps, options.minutes),
        lambda blocks: draw(blocks, place_of, options.blocks, options.seed),
    )
    # Four shifted grids to learn from; who segments has one unless they ask for more.
    return replace(checkpoint, block_config=replace(config.block_config, overlap=1))


def draw(blocks: Iterable[Block], place_of: dict[str, str], most: int, seed: int) -> list[Block]:
    """At most so many labelled blocks of each place, drawn at random: a large place counts no more than a small one."""
    random = np.random.default_rng(seed)
    kept: dict[str, list[Block]] = {}
    number: dict[str, int] = {}
    for block in blocks:
        if block.label is None or np.count_nonzero(block.label[block.is_core] != -1) < _LEAST_LABELLED:
            continue
        place = place_of[block.scan]
        chosen = kept.setdefault(place, [])
        number[place] = number.get(place, 0) + 1
        # Vitter's algorithm R: each block so far is kept with the same probability.
        if len(chosen) < most:
            chosen.append(block)
        elif (at := int(random.integers(number[place]))) < most:
            chosen[at] = block
    return [block for of_place in kept.values() for block in of_place]


def score_place(name: str, checkpoint: Checkpoint, data: Path, cache: Path) -> dict[str, Any]:
    """What labelling a place gives: scores, and how long it took, reading included."""
    sources = sources_of(PLACES[name], data, cache / "scans")
    predictor = Predictor(checkpoint)
    predictor.warm_up()
    began = time.perf_counter()
    labels = label_scans(predictor, sources)
    seconds = time.perf_counter() - began
    names = checkpoint.label_scheme.names
    may_be = [allowed(codes_of(source), source.name, checkpoint.label_scheme) for source in sources]
    scores = set_scores(np.concatenate([labels[s.name] for s in sources]), np.concatenate(may_be), names)
    return scores | {"points": sum(map(len, may_be)), "seconds": round(seconds, 1)}


def codes_of(source: Source) -> np.ndarray:
    """The class codes (P,) of a scan."""
    return np.asarray(read_cloud(source.uri).attributes["classification"])


def set_scores(predicted: np.ndarray, may_be: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Scores of class indices (P,) against the classes that each point may be of, (P, C) bool.

    A point whose row is empty is not scored. Points of one row make a group, "low vegetation | high vegetation" for
    instance: its IoU is the share of points that are right in it, among those of it and those that are wrongly in it.
    """
    known = may_be.any(axis=1)
    predicted, may_be = predicted[known], may_be[known]
    right = may_be[np.arange(len(predicted)), predicted]
    rows, group = np.unique(may_be, axis=0, return_inverse=True)
    iou = {}
    for n, row in enumerate(rows):
        mine = group.ravel() == n
        hits = int(np.count_nonzero(mine & right))
        wrongly = int(np.count_nonzero(~mine & ~right & row[predicted]))
        label = " | ".join(name for name, is_in in zip(names, row, strict=True) if is_in)
        iou[label] = round(hits / (int(np.count_nonzero(mine)) + wrongly), 4)
    return {
        "miou": round(float(np.mean(list(iou.values()))), 4),
        "oa": round(float(right.mean()), 4),
        "iou": iou,
        "scored": len(predicted),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """The scores by place as a Markdown table."""
    rows = [
        (
            name,
            PLACES[name].kind,
            f"{PLACES[name].density:g}",
            f"{100 * result['miou']:.1f}",
            f"{100 * result['oa']:.1f}",
            f"{result['points'] / max(result['seconds'], 0.1):,.0f}",
            ", ".join(f"{label} {100 * value:.0f}" for label, value in result["iou"].items()),
        )
        for name, result in results.items()
    ]
    lines = markdown.table(
        ["place", "kind", "points per m²", "mIoU", "overall", "points/s", "IoU"], rows, align="llrrrrl"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
