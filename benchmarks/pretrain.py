"""Train the ready-made network on all places of the open airborne scans.

    python -m benchmarks.pretrain --data FOLDER --cache FOLDER [--out pretrained/airborne --steps 1500 …]

What it is made of stands in `benchmarks.airborne`, what it learns from in `benchmarks.places`. How it does on places
that it never saw, `python -m benchmarks.by_place` says, which takes the same options: nothing is held out here. Ends
with one JSON line.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace

import torch

from benchmarks.by_place import arguments, cut_places, settings, train_fold
from benchmarks.places import PLACES
from models.weights.checkpoint import save_checkpoint
from pointcloud.errors import PointloomError
from pointcloud.labels import find_scheme

_OUT = "pretrained/airborne"


def main(argv: list[str] | None = None) -> int:
    """Train and write the checkpoint; the exit status. Bad input is one sentence and status 2."""
    options = arguments(argv)
    torch.set_num_threads(options.threads)
    out = str(options.out or _OUT)
    try:
        began = time.perf_counter()
        config, network, plan = settings(options)
        used = [place for place in PLACES if place not in options.without]
        records = cut_places(used, options.data, options.cache, config)
        checkpoint = train_fold(records, options, config, network, plan)
        scans = sorted(scan for of_place in records.values() for scan in of_place)
        # The producers' codes are of these scans; who labels their own has codes of the classes only.
        scheme = find_scheme(f"{_OUT}/classes.json")
        if scheme.names == checkpoint.label_scheme.names:
            checkpoint = replace(checkpoint, label_scheme=scheme)
        save_checkpoint(out, replace(checkpoint, provenance={"scans": scans}))
    except PointloomError as error:
        print(f"pretrain: {error}", file=sys.stderr)
        return 2
    seconds = round(time.perf_counter() - began, 1)
    print(json.dumps({"checkpoint": out, "seconds": seconds, "loss": checkpoint.history[-1]["train_loss"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
