"""The main job end to end: a real tile, cut in two; trained on one part, scored on the part it never saw."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import flow, get_run_logger
from pydantic import BaseModel

from flows.evaluate import evaluate
from flows.parameters.demo import DemoParameters
from flows.parameters.evaluate import EvaluateParameters
from flows.parameters.preprocess import PreprocessParameters
from flows.parameters.segment import SegmentParameters
from flows.parameters.train import TrainParameters
from flows.preprocess import preprocess
from flows.segment import segment
from flows.train import train
from tasks.demo import prepare_demo_data


class DemoResult(BaseModel):
    """What the demo made."""

    source: str
    labelled: str
    report: str
    checkpoint: str
    scores: dict[str, Any]
    seconds: dict[str, float]


@flow(name="demo")
def demo(parameters: DemoParameters) -> DemoResult:
    """Preprocess → train → segment → evaluate on the demo's data; what is done already is kept."""
    logger = get_run_logger()
    out = parameters.out.rstrip("/")
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        logger.info("── %s ──", name)
        began = time.monotonic()
        yield
        seconds[name] = round(time.monotonic() - began, 1)

    with stage("fetch"):
        data = prepare_demo_data(out, parameters.source)
    blocks, checkpoint, labelled = f"{out}/blocks", f"{out}/checkpoint", f"{out}/labelled"
    with stage("preprocess"):
        preprocess(
            PreprocessParameters(
                scans=[data.train],
                out=blocks,
                label_scheme=data.label_scheme,
                tile_size_m=data.tile_size_m,
                halo_m=data.halo_m,
                voxel_size_m=data.voxel_size_m,
                ground_window_m=data.ground_window_m,
                val_fraction=data.val_fraction,
                overlap=2,
                processes=1,
            )
        )
    with stage("train"):
        train(
            TrainParameters(
                dataset=blocks,
                out=checkpoint,
                features=list(data.features),
                num_layers=data.num_layers,
                epochs=parameters.epochs or data.epochs,
                **data.training,
            )
        )
    with stage("segment"):
        (labelled_scan,) = segment(
            SegmentParameters(scans=[data.delivered], checkpoint=checkpoint, out=labelled)
        )
    with stage("evaluate"):
        scores = evaluate(
            EvaluateParameters(
                labelled=[labelled_scan],
                truth=[data.truth],
                delivered=[data.delivered],
                out=out,
                label_scheme=data.label_scheme,
                checkpoint=checkpoint,
                title="Pointloom demo: the held-out scan",
                subtitle=data.source,
                facts={
                    "labelled cloud": labelled_scan,
                    "checkpoint": checkpoint,
                    **{f"this run, seconds to {name}": f"{taken}" for name, taken in seconds.items()},
                },
            )
        )
    return DemoResult(
        source=data.source,
        labelled=labelled_scan,
        report=f"{out}/report.html",
        checkpoint=checkpoint,
        scores=scores,
        seconds=seconds,
    )
