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
from pointcloud.labelled import output_name
from pointcloud.labelled_clouds import find_clouds, read_labelled, stem_of
from pointcloud.labels import LabelScheme
from tasks.report.page import Report, ScanView, render
from tasks.scores import ScanScores, tables, to_markdown, write_parquet
from tasks.scores import total as scores_of_all
from tasks.watching import show_markdown

_SCANS_SHOWN = 4


@dataclass(frozen=True)
class Pair:
    """One labelled cloud, its truth, the scan as it was delivered, and another version of the labels, if there is one.

    All hold the same points in the same order.
    """

    name: str
    labelled: str
    truth: str
    delivered: str
    against: str | None = None


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


def find_pairs(
    labelled: list[str], truth: list[str], delivered: list[str], against: list[str] | None = None
) -> tuple[Pair, ...]:
    """Pair labelled clouds with truth, and with the delivered scans and another version if given, by name.

    The format is no part of a name. Of several with one name that of the same format is taken.

    Raises:
        StorageError: nothing at a path.
        PointloomError: a labelled cloud without one of them, or with several.
    """
    truths = _by_stem(truth)
    befores = _by_stem(delivered) if delivered else truths
    others = _by_stem(against) if against else {}
    pairs = []
    for sources in _by_stem(labelled).values():
        if len(sources) > 1:
            raise PointloomError(
                f"{sources[0].uri!r} and {sources[1].uri!r} are both the labelled cloud of one scan; name one of them."
            )
        (source,) = sources
        pairs.append(
            Pair(
                source.name,
                source.uri,
                _partner(source, "truth", truths),
                _partner(source, "delivered scan", befores),
                _partner(source, "other version", others) if against else None,
            )
        )
    if not pairs:
        raise PointloomError(
            f"no labelled cloud among {', '.join(map(repr, labelled))}; give where they are."
        )
    return tuple(pairs)


def _by_stem(patterns: list[str]) -> dict[str, list[storage.Source]]:
    found: dict[str, list[storage.Source]] = {}
    for source in find_clouds(patterns):
        found.setdefault(stem_of(source.name), []).append(source)
    return found


def _partner(source: storage.Source, what: str, among: dict[str, list[storage.Source]]) -> str:
    """The URI of what belongs to a labelled cloud."""
    found = among.get(stem_of(source.name), [])
    if not found:
        raise PointloomError(
            f"no {what} for {source.uri!r}: expected a file named {stem_of(source.name)!r}, in any format, among "
            f"{sorted(among)[:5]}; name both alike."
        )
    if len(found) == 1:
        return found[0].uri
    same = [other for other in found if output_name(other.name) == source.name]
    if len(same) != 1:
        raise PointloomError(
            f"{source.uri!r} has more than one {what}, {found[0].uri!r} and {found[1].uri!r}; name one of them."
        )
    return same[0].uri


@task(name="evaluate labelled clouds")
def evaluate_pairs(job: EvaluateJob) -> dict[str, Any]:
    """Score all points of all pairs; write scores.json, scores.md, scores.parquet and report.html below `out`.

    Returns:
        The scores as `Scores.to_dict` gives them.

    Raises:
        PointloomError: a labelled cloud and its truth do not hold the same points, or no point has a true class.
    """
    logger = get_run_logger()
    scheme = job.label_scheme
    found: list[ScanScores] = []
    views: list[ScanView] = []
    facts, unit = dict(job.facts), "metres assumed"
    for pair in job.pairs:
        (labelled, confidence), (truth, _) = read_labelled(pair.labelled), read_labelled(pair.truth)
        _check_same_points(pair.labelled, labelled, pair.truth, truth)
        view = _view(pair, labelled, confidence, truth, scheme)
        found.append(_count(pair, view, labelled, scheme))
        counts = found[-1].confusion
        miou = Scores.from_confusion(counts, scheme.names).miou
        logger.info("%s: %s points scored, mIoU %s", pair.name, f"{counts.sum():,}", _figure(miou))
        if len(views) < _SCANS_SHOWN:
            views.append(view)
            facts["CRS"] = labelled.crs.name if labelled.crs else "not named in the scan; metres assumed"
            unit = labelled.crs.axis_info[0].unit_name if labelled.crs else unit
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
    page = render(
        Report(
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
    )
    storage.write_json(
        storage.join(job.out, "scores.json"), {"confusion": total.tolist(), **scores.to_dict()}
    )
    write_parquet(storage.join(job.out, "scores.parquet"), found, scheme.names)
    text = to_markdown(job.title, found, scheme.names)
    storage.write_bytes(storage.join(job.out, "scores.md"), text.encode())
    storage.write_bytes(storage.join(job.out, "report.html"), page.encode())
    show_markdown(f"scores-{job.out}", text, f"Scores of {job.title}")
    logger.info("mIoU %s, overall accuracy %s", _figure(scores.miou), _figure(scores.overall_accuracy))
    return scores.to_dict()


def _count(pair: Pair, view: ScanView, labelled: Cloud, scheme: LabelScheme) -> ScanScores:
    """The confusions of a scan, and how many points another version labels differently."""
    assert view.truth is not None, "what is scored has truth"
    counts, against, num_changed = confusion(view.after, view.truth, len(scheme)), None, 0
    if pair.against is not None:
        cloud, _ = read_labelled(pair.against)
        _check_same_points(pair.labelled, labelled, pair.against, cloud)
        other = _indices(cloud, scheme)
        against = confusion(other, view.truth, len(scheme))
        num_changed = int(np.count_nonzero(other != view.after))
    return ScanScores(pair.name, counts, against, len(labelled), num_changed)


def _check_same_points(labelled_uri: str, labelled: Cloud, other_uri: str, other: Cloud) -> None:
    if len(labelled) != len(other):
        raise PointloomError(
            f"{labelled_uri!r} has {len(labelled):,} points and {other_uri!r}, which it is scored against, "
            f"{len(other):,}; expected the same points in the same order."
        )
    # Half a millimetre: the scale of either file may differ, a point may not.
    metres = np.array(metres_per_unit(labelled.crs))[[0, 0, 1]]
    moved = np.abs((labelled.xyz - other.xyz) * metres).max()
    if moved > 5e-4:
        raise PointloomError(
            f"points of {labelled_uri!r} lie up to {moved:.3g} m from those of {other_uri!r}, which they are scored "
            "against; expected the same points in the same order."
        )


def _view(
    pair: Pair, labelled: Cloud, confidence: np.ndarray | None, truth: Cloud, scheme: LabelScheme
) -> ScanView:
    delivered = truth if pair.delivered == pair.truth else read_labelled(pair.delivered)[0]
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
