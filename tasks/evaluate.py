"""Labelled clouds against the truth: every point counts, and one page shows the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from prefect import get_run_logger, task

from models.checkpoint import read_checkpoint
from models.metrics import Scores, confusion
from pointcloud import storage
from pointcloud.cloud import Cloud
from pointcloud.crs import metres_per_unit
from pointcloud.errors import PointloomError
from pointcloud.labelled import CONFIDENCE, output_name
from pointcloud.labels import LabelScheme
from pointcloud.reader import read_cloud
from pointcloud.scan import SUFFIXES, read_dimension
from tasks.report.page import Report, ScanView, render
from tasks.watching import show_markdown

_SCANS_SHOWN = 4


@dataclass(frozen=True)
class Pair:
    """One labelled cloud, its truth, and the scan as it was delivered; all hold the same points in the same order."""

    name: str
    labelled: str
    truth: str
    delivered: str


@dataclass(frozen=True)
class EvaluateJob:
    """What is compared, and what the report says about it."""

    pairs: tuple[Pair, ...]
    out: str
    label_scheme: LabelScheme
    checkpoint: str | None
    title: str
    subtitle: str
    facts: dict[str, str]


def find_pairs(labelled: list[str], truth: list[str], delivered: list[str]) -> tuple[Pair, ...]:
    """Pair labelled clouds with truth, and with the delivered scans if given, by name.

    Raises:
        StorageError: nothing at a path.
        PointloomError: a labelled cloud without truth.
    """
    truths = {output_name(s.name): s.uri for s in storage.expand(truth, SUFFIXES)}
    befores = (
        {output_name(s.name): s.uri for s in storage.expand(delivered, SUFFIXES)} if delivered else truths
    )
    pairs = []
    for source in storage.expand(labelled, SUFFIXES):
        for what, found in (("truth", truths), ("delivered scan", befores)):
            if source.name not in found:
                raise PointloomError(
                    f"no {what} for {source.uri!r}: expected a file named {source.name!r} among {sorted(found)[:5]}; "
                    "name both alike."
                )
        pairs.append(Pair(source.name, source.uri, truths[source.name], befores[source.name]))
    return tuple(pairs)


@task(name="evaluate labelled clouds")
def evaluate_pairs(job: EvaluateJob) -> dict[str, Any]:
    """Score all points of all pairs; write scores.json and report.html below `out`.

    Returns:
        The scores as `Scores.to_dict` gives them.

    Raises:
        PointloomError: a labelled cloud and its truth do not hold the same points, or no point has a true class.
    """
    logger = get_run_logger()
    scheme = job.label_scheme
    total = np.zeros((len(scheme), len(scheme) + 1), np.int64)
    views: list[ScanView] = []
    facts, unit = dict(job.facts), "metres assumed"
    for pair in job.pairs:
        labelled, truth = read_cloud(pair.labelled), read_cloud(pair.truth)
        _check_same_points(pair, labelled, truth)
        view = _view(pair, labelled, truth, scheme)
        counts = confusion(view.after, _indices(truth, scheme), len(scheme))
        total += counts
        miou = Scores.from_confusion(counts, scheme.names).miou
        logger.info("%s: %s points scored, mIoU %s", pair.name, f"{counts.sum():,}", _figure(miou))
        if len(views) < _SCANS_SHOWN:
            views.append(view)
            facts["CRS"] = labelled.crs.name if labelled.crs else "not named in the scan; metres assumed"
            unit = labelled.crs.axis_info[0].unit_name if labelled.crs else unit
    if not total.any():
        raise PointloomError(
            f"no point of the truth has a class of the label scheme {scheme.name!r} ({', '.join(scheme.names)}); use "
            "the scheme of the scans."
        )
    scores = Scores.from_confusion(total, scheme.names)
    history: list[dict[str, Any]] = []
    if job.checkpoint is not None:
        history = read_checkpoint(job.checkpoint, weights=False).history
    facts = {"points scored": f"{scores.num_scored:,}", "scans": str(len(job.pairs)), **facts}
    page = render(
        Report(
            title=job.title,
            subtitle=job.subtitle,
            scheme=scheme,
            scans=tuple(views),
            confusion=total,
            history=history,
            facts=facts,
            unit=unit,
            # From above, a room is its ceiling.
            lifted=tuple(name for name in scheme.names if name == "ceiling"),
        )
    )
    storage.write_json(
        storage.join(job.out, "scores.json"), {"confusion": total.tolist(), **scores.to_dict()}
    )
    storage.write_bytes(storage.join(job.out, "report.html"), page.encode())
    show_markdown(f"scores-{job.out}", scores.to_markdown(), f"Scores of {job.title}")
    logger.info("mIoU %s, overall accuracy %s", _figure(scores.miou), _figure(scores.overall_accuracy))
    return scores.to_dict()


def _check_same_points(pair: Pair, labelled: Cloud, truth: Cloud) -> None:
    if len(labelled) != len(truth):
        raise PointloomError(
            f"{pair.labelled!r} has {len(labelled):,} points and its truth {pair.truth!r} {len(truth):,}; expected the "
            "same points in the same order."
        )
    # Half a millimetre: the scale of either file may differ, a point may not.
    metres = np.array(metres_per_unit(labelled.crs))[[0, 0, 1]]
    moved = np.abs((labelled.xyz - truth.xyz) * metres).max()
    if moved > 5e-4:
        raise PointloomError(
            f"points of {pair.labelled!r} lie up to {moved:.3g} m from those of its truth {pair.truth!r}; expected the "
            "same points in the same order."
        )


def _view(pair: Pair, labelled: Cloud, truth: Cloud, scheme: LabelScheme) -> ScanView:
    delivered = truth if pair.delivered == pair.truth else read_cloud(pair.delivered)
    confidence = read_dimension(pair.labelled, CONFIDENCE)
    return ScanView(
        name=pair.name,
        xyz=labelled.xyz,
        before=_indices(delivered, scheme),
        after=_indices(labelled, scheme),
        truth=_indices(truth, scheme),
        confidence=None if confidence is None else confidence.astype(np.float32).clip(0, 1),
    )


def _indices(cloud: Cloud, scheme: LabelScheme) -> np.ndarray:
    return scheme.to_indices(np.asarray(cloud.attributes["classification"]))


def _figure(share: float | None) -> str:
    return "undefined" if share is None else f"{share:.3f}"
