"""The segment flow as users meet it: plans, the lock, bad scans, the table and map of the UI."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pyarrow.parquet as pq
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

import flows.segment
from flows.segment import SegmentParameters, check, segment
from models.weights.checkpoint import save_checkpoint
from pointcloud.delivery.proof import find_difference
from pointcloud.errors import PointloomError, StorageError
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig
from pointcloud.storage import files, lock
from pointcloud.storage.inputs import Source
from tasks.collection.plan import examine_scans
from tasks.runtime.isolation import isolated
from tasks.segmenting.job import STAGE
from tasks.segmenting.segment import segment_scans
from tests.models.test_predictor import make_predictor
from tests.support import broken_files
from tests.support.clouds import write_las

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.mark.slow
def test_labelled_clouds_in_another_format(survey: Path, checkpoint: Path, tmp_path: Path) -> None:
    scan = sorted(survey.glob("*.laz"))[0]
    (made,) = segment(segmenting(scan, checkpoint, tmp_path, format="parquet", codes=["building=64"]))
    table = pq.read_table(made)
    assert made.endswith(".parquet")
    assert table.num_rows == len(laspy.read(scan).points)
    assert 64 in table["classification"].to_pylist()
    laspy.convert(laspy.read(scan), point_format_id=1, file_version="1.2").write(str(tmp_path / "old.las"))
    old = segmenting(tmp_path / "old.las", checkpoint, tmp_path / "out", codes=["building=64"], dry_run=True)
    assert "1 scan (" in segment(old)[0]
    assert "will be quarantined" not in segment(old.model_copy(update={"upgrade_format": True}))[0]
    shutil.copy(scan, tmp_path / "a.laz")
    laspy.read(scan).write(str(tmp_path / "a.las"))
    with pytest.raises(PointloomError, match="would both become"):
        check(segmenting(tmp_path / "a.la?", checkpoint, tmp_path / "out", format="ply"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with weights as drawn: what it says is of no use, but it says it of every point."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(str(folder), make_predictor(voxel_size_m=1.0).checkpoint)
    return folder


def segmenting(scans: Path, checkpoint: Path, out: Path, **changes: object) -> SegmentParameters:
    settings = {"cpus_per_actor": 1} | changes
    return SegmentParameters(scans=[str(scans)], checkpoint=str(checkpoint), out=str(out), **settings)


def written(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.la?")}


def times(out: Path) -> dict[str, int]:
    """All that is in a folder, with the time it was written."""
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.rglob("*")}


def assert_sampled(plan: str, scans: Path) -> None:
    """The estimate was measured on one of the scans, on all its points: they take less than 20 s."""
    said = re.search(
        r"about \S+ \w+ with 1 actor, at [\d,]+ points/s .* sample of ([\d,]+) points of '(\S+)'", plan
    )
    assert said, plan
    assert int(said[1].replace(",", "")) == len(laspy.read(scans / said[2]).points)


def test_a_dry_run_whose_first_sample_cannot_be_read_measures_the_next_or_says_why(
    survey: Path, checkpoint: Path, tmp_path: Path
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "labelled"
    shutil.copytree(survey, scans)
    good = sorted(scans.iterdir())
    # More points, and yet fewer than enough: it is asked first.
    bad = scans / "bad.laz"
    write_survey(SurveyConfig(seed=3, tile_size_m=60.0, tiles=(1, 1), points_per_m2=3.0), tmp_path)[0].rename(
        bad
    )
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    (plan,) = segment(segmenting(scans, checkpoint, out, dry_run=True))
    assert_sampled(plan, scans)
    assert "bad.laz'" not in plan.split("points/s")[1]
    for scan in good:
        scan.unlink()
    (plan,) = segment(segmenting(scans, checkpoint, out, dry_run=True))
    assert "no estimate of time, because no sample could be measured: cannot read scan" in plan
    assert "bad.laz" in plan.split("no estimate of time")[1]
    assert not out.exists()


@pytest.mark.slow
def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    survey: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, out, scratch = tmp_path / "scans", tmp_path / "labelled", tmp_path / "scratch"
    shutil.copytree(survey, scans)
    scratch.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(scratch))
        (plan,) = segment(segmenting(scans, checkpoint, out, dry_run=True))
    assert "2 scans to do (2 new)" in plan
    assert_sampled(plan, scans)
    assert not out.exists()
    assert not list(scratch.glob("pointloom-*"))
    segment(segmenting(scans, checkpoint, out))
    before, kept = written(out), times(out)
    assert len(before) == 2
    (plan,) = segment(segmenting(scans, checkpoint, out, dry_run=True))
    assert "0 scans to do (2 unchanged)" in plan
    (plan,) = segment(segmenting(scans, checkpoint, out, overlap=2, dry_run=True))
    assert "2 changed" in plan
    assert_sampled(plan, scans)  # two views of every place take longer than what was labelled here
    save_checkpoint(str(tmp_path / "other"), make_predictor(seed=1, voxel_size_m=1.0).checkpoint)
    (plan,) = segment(segmenting(scans, tmp_path / "other", out, dry_run=True))
    assert "2 changed" in plan
    assert_sampled(plan, scans)
    assert times(out) == kept
    # What is no longer asked for stays; whose neighbour is gone, or what was lost, is labelled again.
    first, second = sorted(out.glob("*.laz"))
    first.unlink()
    (scans / second.name).unlink()
    (plan,) = segment(segmenting(scans, checkpoint, out, dry_run=True))
    assert "1 scan to do (1 changed, 1 gone)" in plan
    assert "points/s each as measured on 2 scans here" in plan
    segment(segmenting(scans, checkpoint, out))
    assert written(out)[second.name] == before[second.name]
    assert first.exists()


def test_all_that_can_be_written_is_written(survey: Path, checkpoint: Path, tmp_path: Path) -> None:
    scan = sorted(survey.glob("*.laz"))[0]
    choices = {
        "preserve": [6, 2], "min_confidence": 0.5, "keep_original": True, "entropy": True, "probabilities": True,
        "rotations": 2, "smoothing": 4, "codes": ["building=17"],
    }  # fmt: skip
    parameters = segmenting(scan, checkpoint, tmp_path, **choices)
    segment(parameters)
    before, las = laspy.read(scan), laspy.read(tmp_path / scan.name)
    options = parameters.job().options
    assert find_difference(str(scan), str(tmp_path / scan.name), options) is None
    delivered, written_codes = np.asarray(before.classification), np.asarray(las.classification)
    np.testing.assert_array_equal(np.asarray(las["original_classification"]), delivered)
    kept = np.isin(delivered, (2, 6))
    assert (written_codes[kept] == delivered[kept]).all()
    assert set(np.unique(written_codes[~kept])) <= {1, 2, 5, 17}
    assert 17 in written_codes
    shares = np.stack([np.asarray(las[f"p_{name}"]) for name in ("ground", "vegetation", "building")], axis=1)
    assert np.abs(shares.sum(axis=1) - 1).max() < 0.007
    assert np.abs(shares.max(axis=1) - np.asarray(las["confidence"])).max() < 0.0081
    assert (np.asarray(las["entropy"]) > 0).any()
    record = json.loads((tmp_path / "ledger/segment" / f"{scan.name}.json").read_text())
    assert sum(record["details"]["code_counts"].values()) == len(las.points)
    proof = record["details"]["proof"]
    assert proof["points"] == len(before.points)
    assert proof["content"] == files.fingerprint(str(tmp_path / scan.name))
    assert "gps_time" in proof["dimensions"]
    with pytest.raises(PointloomError, match="codes name the class 'tree'"):
        check(segmenting(scan, checkpoint, tmp_path, codes=["tree=5"]))
    (plan,) = segment(parameters.model_copy(update={"preserve": [2, 6, 6], "dry_run": True}))
    assert "1 unchanged" in plan
    (plan,) = segment(parameters.model_copy(update={"entropy": False, "dry_run": True}))
    assert "1 changed" in plan


def test_a_second_run_is_refused_while_the_first_writes(
    survey: Path, checkpoint: Path, tmp_path: Path
) -> None:
    with (
        lock.held(str(tmp_path / "out")),
        pytest.raises(PointloomError, match="another run is writing"),
    ):
        segment(segmenting(survey, checkpoint, tmp_path / "out"))


@pytest.mark.slow
def test_scans_by_state_and_their_map_are_in_the_ui_and_a_bad_scan_is_left_when_asked(
    survey: Path, checkpoint: Path, tmp_path: Path
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "watched"
    shutil.copytree(survey, scans)
    bad = broken_files.not_a_las(scans)
    worst = [write(scans) for write in (*broken_files.PANICS, *broken_files.LETHAL)]
    assert len(segment(segmenting(scans, checkpoint, out, max_quarantined=1 + len(worst)))) == 2
    with get_client(sync_client=True) as client:
        found = {
            artifact.type: artifact.data
            for artifact in client.read_artifacts(
                artifact_filter=ArtifactFilter(key=ArtifactFilterKey(like_="%watched"))
            )
            if not str(artifact.key).startswith("labelled")
        }
    states = {row["scan"]: row["state"] for row in json.loads(found["table"])}
    good = {p.name: "done" for p in survey.glob("*.laz")}
    assert states == good | {p.name: "quarantined" for p in (bad, *worst)}
    assert found["image"].startswith("data:image/svg+xml;base64,")
    assert float(found["progress"]) == 100.0

    record = out / "ledger/segment" / f"{bad.name}.json"
    tried = record.stat().st_mtime_ns
    with pytest.raises(PointloomError, match="5 of 7 scans quarantined, 0 allowed"):
        segment(segmenting(scans, checkpoint, out, retry_quarantined=False))
    assert record.stat().st_mtime_ns == tried, "left as it was"
    # Alone, it is tried again; the rest stays.
    before = written(out)
    with pytest.raises(PointloomError, match="1 of 1 scans quarantined"):
        segment(segmenting(bad, checkpoint, out))
    assert record.stat().st_mtime_ns > tried
    assert written(out) == before


def test_in_the_morning_there_is_a_page_a_map_of_what_to_look_at_and_an_artifact(
    survey: Path, checkpoint: Path, tmp_path: Path
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "morning"
    shutil.copytree(survey, scans)
    broken_files.not_a_las(scans)
    stray = broken_files.huge_extent(scans)
    settings = {"max_quarantined": 2, "review_below": 1.0, "price_per_hour": 3.6}
    segment(segmenting(scans, checkpoint, out, **settings))
    page = (out / "report.html").read_text()
    for said in (
        "Scans that need a look",
        "signature",
        "Cost per km",
        "The most doubtful places",
        "Class shares",
    ):
        assert said in page
    # The stray scan has no CRS, so it is in a file of its own.
    rows = [
        row for path in sorted((out / "review").glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]
    tiles = [row for row in rows if row["i"] is not None]
    assert len(tiles) > 2
    assert all(row["confidence"] < 1 for row in tiles)
    assert [row["scan"] for row in rows if row["i"] is None] == [stray.name], "its header says where it lies"
    with get_client(sync_client=True) as client:
        (artifact,) = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(like_="report-%morning"))
        )
    assert "Scans that need a look" in str(artifact.data)
    # A run that has nothing to do leaves the page as it is, and its maps unread.
    shutil.move(out / "tiles", tmp_path / "tiles")
    segment(segmenting(scans, checkpoint, out, **settings, retry_quarantined=False))
    assert (out / "report.html").read_text() == page
    shutil.move(tmp_path / "tiles", out / "tiles")
    # Asked for more, or without its page, it says how things are.
    others = settings | {"review_below": 0.0}
    segment(segmenting(scans, checkpoint, out, **others, retry_quarantined=False))
    assert (out / "report.html").read_text() != page
    (out / "report.html").unlink()
    segment(segmenting(scans, checkpoint, out, **settings, retry_quarantined=False))
    assert "The most doubtful places" in (out / "report.html").read_text()


def test_one_scan_of_a_collection_is_tried_again_and_labelled_clouds_beside_the_scans_are_none(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "scans" / "labelled"
    survey = write_survey(SurveyConfig(seed=3, tile_size_m=20.0, tiles=(3, 1), points_per_m2=3.0), scans)
    last = survey[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    segment(segmenting(scans, checkpoint, out, max_quarantined=1))
    before, kept = written(out), (out / "report.html").stat().st_mtime_ns
    assert before.keys() == {scan.name for scan in survey[:2]}
    again = segmenting(scans, checkpoint, out, only=[last.name], retry_quarantined=False)
    with pytest.raises(PointloomError, match="1 of 1 scans quarantined"):
        segment(again)
    assert "2 files below the out folder" in caplog.text
    assert caplog.text.count("below the out folder") == 1
    last.write_bytes(whole)
    (plan,) = segment(again.model_copy(update={"dry_run": True}))
    assert "1 scan to do (1 changed)" in plan
    assert len(segment(again)) == 3
    assert {name: written(out)[name] for name in before} == before, "the others are left"
    assert find_difference(str(last), str(out / last.name)) is None
    assert (out / "report.html").stat().st_mtime_ns > kept
    page = (out / "report.html").read_text()
    assert all(scan.name in page for scan in survey)
    # Its neighbour sees more now; it itself is what it is in the collection.
    (plan,) = segment(segmenting(scans, checkpoint, out, dry_run=True))
    assert "1 scan to do (1 changed, 2 unchanged)" in plan
    assert survey[1].name in plan.split("changed | read again")[1].split("|")[1]
    with pytest.raises(PointloomError, match="only names 'x'"):
        check(segmenting(scans, checkpoint, out, only=["x"]))
    with pytest.raises(PointloomError, match="all 3 scans found lie in the out folder"):
        check(segmenting(scans / "*" / "*.laz", checkpoint, out))
    check(segmenting(out / "*.laz", checkpoint, out.parent))  # named by themselves they are scans


def test_a_scan_that_is_gone_between_listing_and_reading_is_named_and_the_rest_is_done(
    survey: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "labelled"
    shutil.copytree(survey, scans)
    gone = shutil.copy(sorted(scans.iterdir())[0], scans / "gone.laz")
    find = flows.segment.find_scans

    def find_and_lose(*arguments: Any) -> list[Source]:
        found = find(*arguments)
        os.unlink(gone)
        return found

    monkeypatch.setattr(flows.segment, "find_scans", find_and_lose)
    with pytest.raises(StorageError, match="1 of 3 scans could not be reached") as error:
        segment(segmenting(scans, checkpoint, out))
    assert "gone.laz" in str(error.value)
    assert len(written(out)) == 2
    assert "gone.laz" in (out / "report.html").read_text()


@pytest.mark.slow
def test_a_run_that_ends_early_has_its_page(
    survey: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "labelled"
    scans.mkdir()
    shutil.copy(sorted(survey.iterdir())[0], scans / "large.laz")
    # Elsewhere: a scan is not labelled without a neighbour that cannot be reached.
    elsewhere = laspy.LasHeader(version="1.4", point_format=6)
    elsewhere.scales, elsewhere.offsets = np.full(3, 0.001), np.array([660000.0, 6862000.0, 0.0])
    lost = [write_las(scans / f"{n}.las", 300, header=elsewhere) for n in range(7)]

    def lose(*_: Any) -> str:
        for scan in lost:
            scan.unlink()
        return ""

    monkeypatch.setattr(flows.segment, "foresee", lose)  # which comes after the scans were looked at
    # The large one, which is the first, ends before the others or beside them.
    with pytest.raises(StorageError, match="7 of 8 scans could not be reached"):
        segment(segmenting(scans, checkpoint, out))
    assert written(out).keys() == {"large.laz"}
    assert "nothing at" in (out / "report.html").read_text()


def test_a_checkpoint_that_is_still_training_is_named_as_such(
    survey: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = tmp_path / "checkpoint"
    record = make_predictor(voxel_size_m=1.0).checkpoint
    save_checkpoint(str(checkpoint), replace(record, provenance={"unfinished": "key"}))
    out, said = (
        tmp_path / "out",
        f"checkpoint {str(checkpoint)!r} is unfinished: its training has not finished",
    )
    scan = sorted(survey.glob("*.la[sz]"))[0]
    (plan,) = segment(segmenting(scan, checkpoint, out, dry_run=True))
    assert said in plan
    segment(segmenting(scan, checkpoint, out))
    assert said in caplog.text
    assert "its training has not finished" in (out / "report.html").read_text()


def test_a_checkpoint_replaced_after_the_plan_ends_the_run_with_one_sentence(
    survey: Path, checkpoint: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, mine)
    (scan,) = write_survey(SurveyConfig(seed=5, tile_size_m=20.0, tiles=(1, 1), points_per_m2=2.0), tmp_path)

    @flow
    def replaced() -> None:
        job = segmenting(scan, mine, tmp_path / "out").job()
        with isolated(1, 1500, 60.0) as processes:
            sources = [Source(str(scan), scan.name)]
            collection = examine_scans(STAGE, job.out, sources, job.config, job.key, processes, 1)
        save_checkpoint(str(mine), make_predictor(seed=1, voxel_size_m=1.0).checkpoint)
        segment_scans(collection, job)

    with pytest.raises(PointloomError, match=r"^checkpoint .* was replaced after this run had begun with it"):
        replaced()
    assert not list((tmp_path / "out").rglob("*.la[sz]"))
