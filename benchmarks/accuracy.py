"""DeepGCN against a random forest on real tiles, the same training tiles and classes, every point of the test.

    python -m benchmarks.accuracy --train FILES --test FILES --classes NAME [--minutes 9 --threads 2 …]

DeepGCN trains on blocks of the training scans with the train flow's own step, and keeps the epoch that is best on
the validation split of the training scans; the forest (benchmarks/forest.py) trains on every labelled point of
them. With --val-fraction 0 DeepGCN does so too, and the last epoch is kept: what --test does unless told otherwise.
Both then label every point of the test scans, which nothing has seen before. IoU is over all test points together; a
class that no point has or was given is left out and named in "absent". Sizes that are not given follow from the
density of the training scans. Without --test only the validation is scored. Settings are chosen there, or by making
one of the training scans the test. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch

from benchmarks.forest import Forest, ForestConfig, class_indices, point_spacing_m
from benchmarks.scan_training import Budget, train_on_scans
from benchmarks.segmenting import label_scans
from models.metrics import Scores, confusion
from models.network.configurations import DeepGCNConfig
from models.predictor import Predictor
from models.recipes import RECIPES, Loss, fusion_channels, recipe_changes
from models.recipes import recipe as find_recipe
from models.weights.checkpoint import Checkpoint
from pointcloud.blocks.features import (
    FEATURES,
    SPARSE_M,
    check_features,
    is_airborne,
    num_channels,
    survey_features,
)
from pointcloud.cloud import Cloud
from pointcloud.dataset.preprocessing import PreprocessConfig
from pointcloud.dataset.splits import SplitRule
from pointcloud.errors import PointloomError
from pointcloud.formats.reader import find_scans, read_cloud
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labels import LabelScheme, find_scheme
from pointcloud.storage.inputs import Source


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--train", nargs="+", required=True, metavar="FILE", help="scans with classes; folders and globs too")
    add("--test", nargs="+", default=[], metavar="FILE", help="scans to score; without: validation only")
    add("--classes", required=True, metavar="NAME", help="label scheme: a preset, or a JSON file")
    add("--layers", type=int, default=4, help="graph convolutions of the ResGCN")
    add("--channels", type=int, default=32)
    add("--k", type=int, default=16, help="neighbours of a point")
    add(
        "--fusion-channels",
        type=int,
        help="of the fused vector of a block; 0: none (default: by density, or 8 × channels)",
    )
    add("--voxel-m", type=float, help="one point is kept per voxel (default: by density)")
    add("--tile-m", type=float, help="edge of a block (default: by density)")
    add("--halo-m", type=float, help="context around a block (default: by density)")
    add("--overlap", type=int, default=2, help="shifted grids along x and y: more blocks, averaged logits")
    add(
        "--features",
        nargs="+",
        metavar="NAME",
        help="xyz first (default: returns and surroundings, by density)",
    )
    add("--epochs", type=int, default=0, help="0: as many as --steps allow, and --minutes")
    add("--steps", type=int, default=3000, help="of the optimizer, at most; in whole epochs")
    add(
        "--minutes",
        type=float,
        help="of training at most, estimated from its first steps (default: no limit)",
    )
    add("--recipe", choices=RECIPES, default="modern", help="how DeepGCN is trained")
    add("--batch-size", type=int, help="blocks of a step (default: 2, by the recipe paper 16)")
    add("--learning-rate", type=float, help="its peak (default: 3e-3, by the recipe paper 1e-3)")
    add("--ema-decay", type=float, help="of an average of the weights; 0: none (default: 0.98; paper 0)")
    add("--loss", choices=get_args(Loss), help="(default: the recipe's)")
    add(
        "--class-weights",
        action=argparse.BooleanOptionalAction,
        help="(default: by density, or the recipe's)",
    )
    add("--crop", type=float, help="(default: by density, or the recipe's)")
    add("--relief", type=float, help="(default: 0.6 where scans have returns, or the recipe's)")
    add("--rotations", type=int, default=4, help="views of a block whose logits are averaged when labelling")
    add("--val-fraction", type=float, help="of each training scan's ground (default: 0.2, with --test 0)")
    add("--trees", type=int, default=100, help="of the forest")
    add("--threads", type=int, default=2)
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; the exit status. Bad input is one sentence and status 2."""
    options = arguments(argv)
    try:
        record = compare(options)
    except PointloomError as error:
        print(f"accuracy: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in ("jakteristics", "sklearn", "scipy"):
            raise
        print(f"accuracy: {error.name} is missing; pip install 'pointloom[bench]'.", file=sys.stderr)
        return 2
    print(json.dumps(record))
    return 0


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Train and score both; the record that is printed."""
    if (
        options.threads < 1
        or options.epochs < 0
        or not (options.epochs or (options.steps > 0 and (options.minutes is None or options.minutes > 0)))
    ):
        raise PointloomError("threads must be 1 or more, and epochs, or steps and minutes, positive.")
    torch.set_num_threads(options.threads)
    scheme = find_scheme(options.classes)
    sources, tests = find_scans(options.train), find_scans(options.test) if options.test else []
    complete(options, sources)
    both = {os.path.realpath(s.uri) for s in sources} & {os.path.realpath(s.uri) for s in tests}
    if both:
        raise PointloomError(f"{min(both)!r} is among the training and the test scans; leave it out of one.")
    clouds = {source.name: read_cloud(source.uri) for source in tests}
    truth = {name: class_indices(cloud, scheme) for name, cloud in clouds.items()}
    if clouds and not any((label >= 0).any() for label in truth.values()):
        raise PointloomError(
            f"no test point has a class of the label scheme {scheme.name!r} ({', '.join(scheme.names)}); use the "
            "scheme of the scans."
        )
    for name, cloud in clouds.items():
        missing = [
            a for f in options.features for a in FEATURES.get(f, ((),))[0] if a not in cloud.attributes
        ]
        if missing:
            raise PointloomError(
                f"test scan {name!r} has no {', '.join(missing)}; leave out the feature or the scan."
            )
    # The forest first: it takes a minute, and what is wrong with scans or packages it finds too.
    record: dict[str, Any] = compare_forest(sources, clouds, truth, scheme, options) if clouds else {}
    began = time.perf_counter()
    checkpoint = train(sources, scheme, options)
    trained = time.perf_counter()
    if clouds:
        predictor = Predictor(checkpoint, options.rotations)
        labels = label_scans(predictor, tests)
        record = {"ours": summary("DeepGCN", score(labels, truth, scheme)), **record}
        record["label_seconds"] = round(time.perf_counter() - trained, 1)
        scored = sum(int((label >= 0).sum()) for label in truth.values())
        record |= {"points": scored, "points_without_class": sum(map(len, truth.values())) - scored}
    return record | {
        "train_seconds": round(trained - began, 1),
        "classes": list(scheme.names),
        **checkpoint.metrics,
        "options": vars(options),
    }


def complete(options: argparse.Namespace, sources: Sequence[Source]) -> None:
    """Fill in the options that were not given. Raises PointloomError for scans too small to tell their density."""
    if options.val_fraction is None:
        options.val_fraction = 0.0 if options.test else 0.2
    by_density = (
        "voxel_m",
        "tile_m",
        "halo_m",
        "features",
        "class_weights",
        "crop",
        "relief",
        "fusion_channels",
    )
    if all(getattr(options, name) is not None for name in by_density):
        return
    clouds = [read_cloud(source.uri) for source in sources]
    spacing = float(np.median([point_spacing_m(cloud) for cloud in clouds]))
    complete_for(options, spacing, set.intersection(*(set(cloud.attributes) for cloud in clouds)))


def complete_for(options: argparse.Namespace, spacing: float, known: set[str]) -> None:
    """`complete` for scans of this distance between points, metres, that all know these attributes."""
    voxel_m, tile_m, halo_m, features = sizes_for(spacing, options.overlap, options.voxel_m)
    options.voxel_m, options.tile_m = options.voxel_m or voxel_m, options.tile_m or tile_m
    options.halo_m = halo_m if options.halo_m is None else options.halo_m
    options.features = options.features or [f for f in features if known.issuperset(FEATURES[f][0])]
    sparse = spacing >= SPARSE_M
    if options.fusion_channels is None:
        # Half as wide as the papers' heads are for this width: a step then takes half the time.
        options.fusion_channels = fusion_channels(options.recipe, sparse=sparse, width=8 * options.channels)
    for name, value in recipe_changes(options.recipe, airborne=is_airborne(known), sparse=sparse).items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def sizes_for(
    spacing_m: float, overlap: int, voxel_m: float | None = None
) -> tuple[float, float, float, list[str]]:
    """Voxel, tile, halo and features for scans whose points lie so far apart.

    A voxel little wider than that keeps most points and the edges between classes; above 1 m it would mix labels. Tiles
    of 60 distances with halos of 10 hold some 3000 points; of 80 where points are so sparse that few are left out.
    """
    voxel_m = voxel_m or round(min(1.0, max(0.05, round(24 * spacing_m) * 0.05)), 2)
    step = voxel_m * overlap
    tile_m = round(max(1, round((80 if spacing_m >= SPARSE_M else 60) * spacing_m / step)) * step, 2)
    halo_m = round(float(min(tile_m, 10 * spacing_m)), 1)
    return voxel_m, tile_m, halo_m, list(survey_features(spacing_m))


def compare_forest(
    sources: Sequence[Source],
    clouds: dict[str, Cloud],
    truth: dict[str, np.ndarray],
    scheme: LabelScheme,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """The forest's part of the record."""
    began = time.perf_counter()
    config = ForestConfig(options.trees, BlockConfig().ground_window_m, options.threads, options.seed)
    forest = Forest([read_cloud(source.uri) for source in sources], scheme, config)
    scores = score({name: forest.label(cloud) for name, cloud in clouds.items()}, truth, scheme)
    return {
        "random_forest": summary("random forest", scores),
        "forest_seconds": round(time.perf_counter() - began, 1),
        "forest_radii_m": [round(radius, 2) for radius in forest.radii_m],
    }


def train(sources: Sequence[Source], scheme: LabelScheme, options: argparse.Namespace) -> Checkpoint:
    """DeepGCN trained with these options. Raises PointloomError for scans or settings that do not fit."""
    features = tuple(options.features)
    check_features(features)
    config = BlockConfig(
        tile_size_m=options.tile_m,
        halo_m=options.halo_m,
        voxel_size_m=options.voxel_m,
        overlap=options.overlap,
    )
    cutting = PreprocessConfig(
        block_config=config,
        scheme=scheme,
        rule=SplitRule(val_fraction=options.val_fraction),
        required=features,
    )
    width = options.channels
    network = DeepGCNConfig(
        in_channels=num_channels(features),
        num_classes=len(scheme),
        num_layers=options.layers,
        channels=width,
        k=options.k,
        fusion_channels=options.fusion_channels,
        prediction_channels=(4 * width, 2 * width),
    )
    ours = {"batch_size": 2, "learning_rate": 3e-3, "ema_decay": 0.98} if options.recipe == "modern" else {}
    given = {
        name: getattr(options, name)
        for name in ("batch_size", "learning_rate", "ema_decay", "loss", "class_weights", "crop", "relief")
    }
    changes = ours | {name: value for name, value in given.items() if value is not None}
    plan = find_recipe(options.recipe, seed=options.seed, **changes)
    if options.epochs:
        return train_on_scans(sources, cutting, network, plan.with_epochs(options.epochs))
    return train_on_scans(sources, cutting, network, plan, Budget(options.steps, options.minutes))


def score(labels: dict[str, np.ndarray], truth: dict[str, np.ndarray], scheme: LabelScheme) -> Scores:
    """Scores over all points of all scans, one confusion for the set."""
    counts = sum(confusion(labels[name], truth[name], len(scheme)) for name in truth)
    return Scores.from_confusion(np.asarray(counts), scheme.names)


def summary(side: str, scores: Scores) -> dict[str, Any]:
    """What the JSON line says of one side: shares in [0, 1], absent classes named and left out. Prints the table."""
    print(f"\n{side}\n\n{scores.to_markdown()}\n", flush=True)
    present = {n: round(v, 4) for n, v in zip(scores.names, scores.iou, strict=True) if v is not None}
    return {
        "miou": round(scores.miou or 0.0, 4),
        "oa": round(scores.overall_accuracy or 0.0, 4),
        "iou": present,
        "absent": list(scores.absent),
    }


if __name__ == "__main__":
    sys.exit(main())
