"""One page about a segment run, and polygons of the places to look at."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from prefect import get_run_logger

from pointcloud.cloud import ScanHeader
from pointcloud.errors import StorageError
from pointcloud.quality import review_polygons
from pointcloud.quality.doubtful_tiles import (
    LEAST_POINTS,
    NUM_WORST_TILES,
    WorstTile,
    read_tiles,
    read_worst_tiles,
)
from pointcloud.storage import files, geoparquet, ledger
from tasks.collection.plan import Collection
from tasks.prefect_ui.scan_states import show_markdown
from tasks.prefect_ui.survey_map import Box, boxes_of
from tasks.report.figures import counted, grouped, per_cent
from tasks.report.review import Doubtful, Review, class_shares, render
from tasks.report.salvage import Salvage
from tasks.report.words import Tile
from tasks.runtime.stage import stage_task
from tasks.segmenting import kept_report
from tasks.segmenting.job import SegmentJob

REPORT = "report.html"
_MOST_TILES = 6_000
"""More are drawn as one rectangle per scan: a browser has to hold them."""
_SHOWN_PLACES = 9
_SHOWN_ROWS = 20
_READERS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewOptions:
    """Which places are worth a look, and what the machines cost.

    Attributes:
        below: tiles with a smaller mean confidence are among the polygons to review.
        price_per_hour: of all machines together, in any currency; 0: not known.
    """

    below: float = 0.6
    price_per_hour: float = 0.0


@dataclass
class _Gathered:
    """What adds up over the tiles of all scans."""

    to_review: list[pa.Table]
    tiles: list[Doubtful]
    scans: list[Doubtful]
    worst: list[tuple[float, str]]
    crs: dict[str, str]


@stage_task("write report")
def write_report(
    collection: Collection, records: Sequence[ledger.Record], job: SegmentJob, options: ReviewOptions, seconds: float
) -> str:  # fmt: skip
    """Write report.html and the polygons to review beside the labelled clouds, and show a summary in Prefect.

    Args:
        collection: of the run, as it was planned.
        records: of all its scans afterwards.
        seconds: wall time of the labelling.

    Whatever of it cannot be made is said in the log and on the page, and the rest is there: the labels are done, and no
    run fails for its report. A run that had nothing to do leaves the report of the run that had, if it is there.

    Returns:
        The URI of the page; empty where it could not be written.
    """
    salvage = Salvage(get_run_logger())
    uri = files.join(job.out, REPORT)
    of = kept_report.identity(records, job, options, collection.remarks)
    if not collection.plan.todo and (text := kept_report.kept(job.out, of)):
        get_run_logger().info("report: %s, left as it was, since nothing has changed", uri)
        _show(salvage, job.out, text)
        return uri
    page = salvage.make(
        "the report", lambda: _page(collection, records, job, options, seconds, salvage), None
    )
    if page is None:
        with suppress(StorageError):
            files.delete(uri)  # it is about an earlier run
        return ""
    written = salvage.page(uri, lambda: render(page, salvage).encode())
    if written:
        get_run_logger().info("report: %s", uri)
    bad = [r for r in records if r.state != ledger.DONE]
    text = salvage.make("the short of the report", lambda: _to_markdown(page, bad, salvage.failures), "")
    if text:
        _show(salvage, job.out, text)
    if written and text and not salvage.failures:
        with suppress(StorageError):
            kept_report.keep(job.out, of, text)
    return written


def _show(salvage: Salvage, out: str, text: str) -> None:
    salvage.make(
        "the report in the Prefect UI",
        lambda: show_markdown(f"report-{out}", text, f"In the morning: {out}"),
        None,
    )


def _page(
    collection: Collection, records: Sequence[ledger.Record], job: SegmentJob, options: ReviewOptions, seconds: float,
    salvage: Salvage,
) -> Review:  # fmt: skip
    boxes = boxes_of(collection.headers)
    done = [r for r in records if r.state == ledger.DONE]
    bad = [r for r in records if r.state != ledger.DONE]
    names = job.record.label_scheme.names
    gathered = _gather(done, job, options.below, names, salvage)
    gathered.to_review += _whole_scans(records, boxes, collection.headers, salvage)
    folder = files.join(job.out, "review")
    polygons = salvage.make(
        "the polygons to review", lambda: review_polygons.write(folder, gathered.to_review), list[str]()
    )
    places = salvage.make("the most doubtful places", lambda: _worst_tiles(gathered, job), list[WorstTile]())
    todo = set(collection.plan.todo)
    now = [r for r in done if r.scan in todo]
    states = collection.states() | {r.scan: r.state for r in records if r.scan in todo or r in bad}
    num_tiles = sum(len(table) for table in gathered.to_review)
    figures = salvage.make(
        "the key figures",
        lambda: list(_figures(done, bad, now, options.price_per_hour, seconds, num_tiles)),
        list[Tile](),
    )
    return Review(
        title=f"Labelled into {job.out}",
        subtitle=f"Run of {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}: {collection.plan}",
        scheme=job.record.label_scheme,
        records=tuple(records),
        states=states,
        boxes=boxes,
        tiles=tuple(gathered.tiles if len(gathered.tiles) <= _MOST_TILES else gathered.scans),
        places=tuple(places),
        crs=gathered.crs,
        seen=job.record.seen,
        warnings=tuple(filter(None, [job.warning])),
        figures=tuple(figures),
        facts={
            "checkpoint": job.checkpoint,
            "polygons to review": "\n".join(polygons or ["not written"])
            + f"\ntiles that are unlike the training or have a mean confidence below {options.below:g}, places where "
            "points below it lie close together, scans that are quarantined or unlike the training; for QGIS, GDAL, "
            "geopandas",
            "ledger": files.join(job.out, "ledger", "segment"),
            "time of the stages": salvage.make("the time of the stages", lambda: _stages(now), "–"),
            **({"coordinate systems": "\n".join(collection.remarks)} if collection.remarks else {}),
        },
    )


def _whole_scans(
    records: Sequence[ledger.Record], boxes: Mapping[str, Box], headers: Mapping[str, ScanHeader], salvage: Salvage
) -> list[pa.Table]:  # fmt: skip
    """Scans to review as a whole: not labelled, or unlike the training; only those whose place is known."""
    tables = []
    for record in records:
        why = record.error or " ".join(record.details.get("drift", []))
        if why and record.scan in boxes:
            row = partial(
                review_polygons.whole_scan, record.scan, why, boxes[record.scan], headers[record.scan].crs
            )
            table = salvage.make(f"the polygon of scan {record.scan!r}", row, None)
            tables += [] if table is None else [table]
    return tables


def _gather(
    done: Sequence[ledger.Record], job: SegmentJob, below: float, class_names: Sequence[str], salvage: Salvage
) -> _Gathered:
    """What the tiles of all labelled scans say, scan after scan; scans without a file of tiles are left out."""

    def look(record: ledger.Record) -> _Looked | None:
        uri = job.tiles(record.scan)
        return salvage.make(f"the map of scan {record.scan!r}", lambda: _look(uri, below, class_names), None)

    gathered = _Gathered([], [], [], [], {})
    with ThreadPoolExecutor(_READERS) as readers:
        for record, scan in zip(done, readers.map(look, done), strict=True):
            if scan is None:
                continue
            gathered.crs[record.scan] = scan.crs
            gathered.to_review.append(scan.to_review)
            gathered.worst += [(c, record.scan) for c in scan.worst]
            low, high = scan.boxes[:, :2].min(axis=0), scan.boxes[:, 2:].max(axis=0)
            whole = (*low.tolist(), *high.tolist())
            gathered.scans.append(Doubtful(whole, record.details["mean_confidence"], record.scan))
            if len(gathered.tiles) <= _MOST_TILES:
                # One more than can be drawn shows that there are too many.
                some = slice(_MOST_TILES + 1 - len(gathered.tiles))
                gathered.tiles += [
                    Doubtful((x0, y0, x1, y1), sure, record.scan)
                    for (x0, y0, x1, y1), sure in zip(
                        scan.boxes[some].tolist(), scan.confidences[some].tolist(), strict=True
                    )
                ]
    return gathered


@dataclass(frozen=True)
class _Looked:
    """What the tiles of one scan say, n of them: all that is kept while thousands of scans are read."""

    crs: str
    to_review: pa.Table
    worst: list[float]
    boxes: np.ndarray
    confidences: np.ndarray


def _look(uri: str, below: float, class_names: Sequence[str]) -> _Looked | None:
    if not files.exists(uri):
        return None
    tiles = read_tiles(uri)
    if not len(tiles):
        return None
    sure = tiles["confidence"].to_numpy()
    enough = np.sort(sure[tiles["num_points"].to_numpy() >= LEAST_POINTS])[:NUM_WORST_TILES]
    return _Looked(
        review_polygons.crs_name(tiles),
        pa.concat_tables(
            [
                review_polygons.unlike(tiles, below),
                review_polygons.doubtful(tiles, below),
                review_polygons.clusters(tiles, below, class_names),
            ]
        ),
        enough.tolist(),
        geoparquet.bounds(tiles["footprint"].to_pylist()),
        sure,
    )


def _worst_tiles(gathered: _Gathered, job: SegmentJob) -> list[WorstTile]:
    scans = {scan for _, scan in sorted(gathered.worst)[:_SHOWN_PLACES]}
    places = [place for scan in scans for place in read_worst_tiles(job.tiles(scan))]
    return sorted(places, key=lambda p: (p.confidence, p.scan, p.tile))[:_SHOWN_PLACES]


def _figures(
    done: Sequence[ledger.Record], bad: Sequence[ledger.Record], now: Sequence[ledger.Record], price: float,
    seconds: float, num_tiles: int,
) -> Iterator[Tile]:  # fmt: skip
    yield Tile("Labelled", grouped(len(done)), f"{counted(len(now), 'scan', 'scans')} in this run")
    yield Tile("Need a look", grouped(len(bad)), "scans not labelled")
    yield Tile("To review", grouped(num_tiles), "polygons: doubtful places and scans")
    points, area = sum(r.points_in for r in now), sum(r.details.get("area_km2", 0.0) for r in now)
    yield Tile("Points", grouped(sum(r.points_in for r in done)), f"{grouped(points)} in this run")
    if done:
        weights = [r.points_in for r in done]
        sure = float(np.average([r.details["mean_confidence"] for r in done], weights=weights))
        yield Tile("Mean confidence", per_cent(sure), "of all points")
    if now:
        rate = points / max(seconds, 1e-9)
        yield Tile(
            "Points per second", grouped(round(rate)), f"whole run, {seconds:,.0f} s, start-up included"
        )
        yield Tile("km² labelled", f"{area:.3g}", "tiles with points, in this run")
        if price and area:
            cost = price * seconds / 3600 / area
            yield Tile("Cost per km²", f"{cost:,.2f}", f"at {price:g} an hour for all machines")


def _stages(now: Sequence[ledger.Record]) -> str:
    """How long each stage of the actors took, in words."""
    stages: dict[str, float] = {}
    for record in now:
        for stage, seconds in record.details.get("stages", {}).items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    whole = sum(stages.values())
    return ", ".join(f"{stage} {seconds / whole:.0%}" for stage, seconds in stages.items()) if whole else "–"


def _to_markdown(page: Review, bad: Sequence[ledger.Record], failures: Sequence[str]) -> str:
    """What the Prefect UI shows of the page."""
    lines = [
        line for sentence in (*page.warnings, *failures) for line in (f"**Note:** {_cell(sentence)}", "")
    ]
    lines += ["| | | |", "| --- | ---: | --- |"]
    lines += [f"| {tile.label} | {tile.value} | {tile.note} |" for tile in page.figures]
    if bad:
        lines += ["", "**Scans that need a look**", "", "| scan | why |", "| --- | --- |"]
        lines += [f"| {_cell(r.scan)} | {_cell(r.error)} |" for r in bad[:_SHOWN_ROWS]]
    drifted = [r for r in page.records if r.state == ledger.DONE and r.details.get("drift")]
    if drifted:
        lines += ["", "**Unlike the training**", "", "| scan | how |", "| --- | --- |"]
        lines += [
            f"| {_cell(r.scan)} | {_cell(' '.join(r.details['drift']))} |" for r in drifted[:_SHOWN_ROWS]
        ]
    if page.places:
        lines += [
            "",
            "**The most doubtful places**",
            "",
            "| confidence | scan | x | y |",
            "| ---: | --- | ---: | ---: |",
        ]
        for place in page.places:
            x, y = place.xyz[:, :2].mean(axis=0)
            lines.append(f"| {per_cent(place.confidence)} | {_cell(place.scan)} | {x:,.1f} | {y:,.1f} |")
    whole, rows = class_shares(page.records, page.scheme.names)
    if whole is not None:
        lines += [
            "",
            "**Class shares**, the strangest scans first",
            "",
            f"| scan | {' | '.join(page.scheme.names)} |",
        ]
        lines.append("| --- |" + " ---: |" * len(page.scheme))
        for row in (whole, *rows[:_SHOWN_ROWS]):
            lines.append(f"| {_cell(row.name)} | {' | '.join(map(per_cent, row.shares))} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
