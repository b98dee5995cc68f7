"""Labelled clouds against the truth: every point counts, and one page shows the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from prefect import get_run_logger
from pyproj import CRS

from models.metrics import Scores, confusion
from models.weights.checkpoint import read_checkpoint
from pointcloud.cloud import Cloud
from pointcloud.crs import name_of, unit_names
from pointcloud.delivery.read_back import crs_of
from pointcloud.delivery.side_by_side import iterate_same_points
from pointcloud.errors import PointloomError
from pointcloud.formats.given_crs import GivenCrs
from pointcloud.labels import LabelScheme
from pointcloud.storage import files
from tasks.evaluating.pairs import Pair
from tasks.evaluating.scores import ScanScores, tables, to_markdown, write_parquet
from tasks.evaluating.scores import total as scores_of_all
from tasks.prefect_ui.scan_states import show_markdown
from tasks.report.content import Report, ScanView
from tasks.report.gathering import GatheredView
from tasks.report.page import render
from tasks.report.salvage import Salvage
from tasks.runtime.stage import stage_task

_SCANS_SHOWN = 4
_POINTS_KEPT = 2_000_000
"""Of each scan shown: a dozen for each cell of the finest map, some 60 MB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateJob:
    """What is compared, and what the report says about it.

    Attributes:
        pairs: labelled clouds and what each is compared with.
        out: folder or URI of the results.
        label_scheme: which class codes mean what.
        checkpoint: whose training curves are shown; None: none.
        title, subtitle, facts: of the report.
        given: CRSs and units of scans, in place of what their files say.
    """

    pairs: tuple[Pair, ...]
    out: str
    label_scheme: LabelScheme
    checkpoint: str | None
    title: str
    subtitle: str
    facts: dict[str, str]
    given: GivenCrs = field(default_factory=GivenCrs)


@stage_task("evaluate labelled clouds")
def evaluate_pairs(job: EvaluateJob) -> dict[str, Any]:
    """Score all points of all pairs; write scores.json, scores.md, scores.parquet and report.html below `out`.

    Returns:
        The scores as `Scores.to_dict` gives them.

    Raises:
        PointloomError: a labelled cloud and its truth do not hold the same points, or no point has a true class.
    """
    logger = get_run_logger()
    salvage, scheme = Salvage(logger), job.label_scheme
    found: list[ScanScores] = []
    views: list[ScanView] = []
    facts, unit = dict(job.facts), "metres assumed"
    for pair in job.pairs:
        view = GatheredView(pair.name, _POINTS_KEPT) if len(views) < _SCANS_SHOWN else None
        one, crs = _score(pair, scheme, view, job.given)
        found.append(one)
        miou = Scores.from_confusion(one.confusion, scheme.names).miou
        logger.info("%s: %s points scored, mIoU %s", pair.name, f"{one.confusion.sum():,}", _figure(miou))
        if view is not None:
            shown = salvage.make(f"the pictures of {pair.name!r}", view.view, None)
            views += [] if shown is None else [shown]
            facts["CRS"] = name_of(crs) if crs is not None else "not named in the scan; metres assumed"
            unit = unit_names(crs)[0] if crs is not None else unit
    total = scores_of_all(found).confusion
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
    files.write_json(files.join(job.out, "scores.json"), {"confusion": total.tolist(), **scores.to_dict()})
    write_parquet(files.join(job.out, "scores.parquet"), found, scheme.names)
    text = to_markdown(job.title, found, scheme.names)
    files.write_bytes(files.join(job.out, "scores.md"), text.encode())

    def page() -> bytes:
        report = Report(
            title=job.title,
            subtitle=job.subtitle,
            scheme=scheme,
            scans=tuple(views),
            confusion=total,
            tables=tuple(tables(found, scheme.names)),
            history=history,
            facts=facts,
            unit=unit,
            # From above, a room is its ceiling.
            lifted=tuple(name for name in scheme.names if name == "ceiling"),
        )
        return render(report).encode()

    salvage.page(files.join(job.out, "report.html"), page)
    salvage.make(
        "the scores in the Prefect UI",
        lambda: show_markdown(f"scores-{job.out}", text, f"Scores of {job.title}"),
        None,
    )
    logger.info("mIoU %s, overall accuracy %s", _figure(scores.miou), _figure(scores.overall_accuracy))
    return scores.to_dict()


def _score(
    pair: Pair, scheme: LabelScheme, view: GatheredView | None, given: GivenCrs
) -> tuple[ScanScores, CRS | None]:
    """The confusions of a scan, and how many points another version labels differently; its CRS.

    Args:
        given: CRSs and units by the name of the labelled cloud, of all that is compared with it too.
        view: takes the points for the report; without it neither classes as delivered nor confidence are read.
    """
    others = {pair.truth: "scored against"}
    if pair.against is not None:
        others.setdefault(pair.against, "scored against")
    if view is not None:
        others.setdefault(pair.delivered, "shown beside")
    counts = np.zeros((len(scheme), len(scheme) + 1), np.int64)
    against = None if pair.against is None else counts.copy()
    num_points, num_changed, crs = 0, 0, None
    crss = (
        {} if given == GivenCrs() else {u: given.of(pair.name, crs_of(u)) for u in (pair.labelled, *others)}
    )
    known = {uri: one for uri, one in crss.items() if one is not None}
    for points in iterate_same_points(pair.labelled, others, view is not None, known):
        indices = {uri: _indices(cloud, scheme, pair.name) for uri, cloud in points.clouds.items()}
        after, truth = indices[pair.labelled], indices[pair.truth]
        counts += confusion(after, truth, len(scheme))
        num_points += len(after)
        if pair.against is not None and against is not None:
            against += confusion(indices[pair.against], truth, len(scheme))
            num_changed += int(np.count_nonzero(indices[pair.against] != after))
        crs = points.clouds[pair.labelled].crs
        if view is not None:
            sure = points.confidence
            sure = None if sure is None else sure.astype(np.float32).clip(0, 1)
            view.add(points.clouds[pair.labelled].xyz, indices[pair.delivered], after, truth, sure)
    return ScanScores(pair.name, counts, against, num_points, num_changed), crs


def _indices(cloud: Cloud, scheme: LabelScheme, scan: str) -> np.ndarray:
    return scheme.to_indices(np.asarray(cloud.attributes["classification"]), scan)


def _figure(share: float | None) -> str:
    return "undefined" if share is None else f"{share:.3f}"
