"""The commands of the flows: what each takes, runs and prints.

A flow's own module brings Prefect, Ray and torch; it is imported when the command runs, so that `--help` and mistyped
options are answered at once.
"""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from flows.parameters.ablate import AblateParameters
from flows.parameters.crossval import CrossvalParameters
from flows.parameters.demo import DemoParameters
from flows.parameters.evaluate import EvaluateParameters
from flows.parameters.preprocess import PreprocessParameters
from flows.parameters.segment import SegmentParameters
from flows.parameters.train import TrainParameters


def preprocess(*, parameters: Annotated[PreprocessParameters, Parameter(name="*")]) -> None:
    """Cut scans into blocks: one Parquet shard per scan, and a manifest."""
    from flows import preprocess as module
    from flows.embedded_server import run

    done = run(module.check, module.preprocess, parameters)
    print(done if parameters.dry_run else f"blocks dataset: {done}")


def train(*, parameters: Annotated[TrainParameters, Parameter(name="*")]) -> None:
    """Train a DeepGCN on a blocks dataset."""
    from flows import train as module
    from flows.embedded_server import run

    metrics = run(module.check, module.train, parameters)
    print(
        f"checkpoint: {parameters.out} (validation mIoU {metrics['val_miou']:.3f}, epoch {metrics['epoch']})"
    )


def segment(*, parameters: Annotated[SegmentParameters, Parameter(name="*")]) -> None:
    """Label scans with a checkpoint; only the classes change, and the dimensions that you asked for are added."""
    from flows import segment as module
    from flows.embedded_server import run
    from tasks.report.salvage import page_line
    from tasks.segmenting.morning_report import REPORT

    for done in run(module.check, module.segment, parameters, module.prepared):
        print(done if parameters.dry_run else f"labelled cloud: {done}")
    if not parameters.dry_run:
        print(page_line(f"{parameters.out.rstrip('/')}/{REPORT}"))


def evaluate(*, parameters: Annotated[EvaluateParameters, Parameter(name="*")]) -> None:
    """Score labelled clouds against the truth and write a report."""
    from flows import evaluate as module
    from flows.embedded_server import run
    from tasks.report.salvage import page_line

    scores = run(module.check, module.evaluate, parameters)
    for label in scores["classes"]:
        share = "absent" if label["iou"] is None else f"{label['iou']:.3f}"
        print(f"IoU {label['name']}: {share}")
    print(f"mIoU {scores['miou']:.3f}, overall accuracy {scores['overall_accuracy']:.3f}")
    print(page_line(f"{parameters.out.rstrip('/')}/report.html"))


def crossval(*, parameters: Annotated[CrossvalParameters, Parameter(name="*")]) -> None:
    """Cross-validate: areas of S3DIS, or squares of a survey; one table."""
    from flows import crossval as module
    from flows.embedded_server import run

    print(f"table: {run(module.check, module.crossval, parameters)}")


def ablate(*, parameters: Annotated[AblateParameters, Parameter(name="*")]) -> None:
    """Make the paper's ablation table: dilation, graph, layers, k, depth, width, operator."""
    from flows import ablate as module
    from flows.embedded_server import run

    print(f"table: {run(module.check, module.ablate, parameters)}")


def demo(*, parameters: Annotated[DemoParameters, Parameter(name="*")] = DemoParameters()) -> None:  # noqa: B008
    """Do the main job on a real scan, end to end, in minutes."""
    from flows import demo as module
    from flows.embedded_server import run

    result = run(lambda _: None, module.demo, parameters)
    scores = result.scores
    print(f"\ndata            {result.source}")
    print(f"stages          {', '.join(f'{name} {taken:.0f} s' for name, taken in result.seconds.items())}")
    print(
        "held-out scores "
        + ", ".join(f"{c['name']} {_share(c['iou'])}" for c in scores["classes"])
        + " (IoU)"
    )
    print(f"                mIoU {_share(scores['miou'])}, overall accuracy {_share(scores['overall_accuracy'])}, "
          f"{scores['num_scored']:,} points")  # fmt: skip
    print(f"labelled cloud  {result.labelled}")
    print(f"checkpoint      {result.checkpoint}")
    print(f"report          {result.report}   (open it in a browser)")


def _share(value: float | None) -> str:
    return "absent" if value is None else f"{value:.3f}"
