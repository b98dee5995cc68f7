"""The segment flow as users meet it: plans, the lock, bad scans, the table and map of the UI."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import laspy
import numpy as np
import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.segment import SegmentParameters, check, segment
from models.checkpoint import save_checkpoint
from pointcloud import lock, storage
from pointcloud.errors import PointloomError
from pointcloud.proof import find_difference
from tests import broken_files
from tests.models.test_predictor import make_predictor


def test_labelled_clouds_in_another_format(survey: Path, checkpoint: Path, tmp_path: Path) -> None:
    scan = sorted(survey.glob("*.laz"))[0]
    (made,) = segment(segmenting(scan, checkpoint, tmp_path, format="parquet", codes=["building=64"]))
    table = pq.read_table(made)
    assert made.endswith(".parquet")
    assert table.num_rows == len(laspy.read(scan).points)
    assert 64 in table["classification"].to_pylist()
    laspy.convert(laspy.read(scan), point_format_id=1, file_version="1.2").write(str(tmp_path / "old.las"))
    old = segmenting(tmp_path / "old.las", checkpoint, tmp_path / "out", codes=["building=64"], dry_run=True)
    assert "1 scans, such as" in segment(old)[0]
    assert "such as" not in segment(old.model_copy(update={"upgrade_format": True}))[0]
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
    return SegmentParameters(scans=[str(scans)], checkpoint=str(checkpoint), out=str(out), **settings)  # type: ignore[arg-type]


def written(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.la?")}


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    survey: Path, checkpoint: Path, tmp_path: Path
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "labelled"
    shutil.copytree(survey, scans)
    (plan,) = segment(segmenting(scans, checkpoint, out, dry_run=True))
    assert "2 scans to do (2 new)" in plan
    assert "no estimate of time" in plan
    assert not out.exists()
    segment(segmenting(scans, checkpoint, out))
    before = written(out)
    assert len(before) == 2
    (plan,) = segment(segmenting(scans, checkpoint, out, dry_run=True))
    assert "0 scans to do (2 unchanged)" in plan
    (plan,) = segment(segmenting(scans, checkpoint, out, overlap=2, dry_run=True))
    assert "2 changed" in plan
    assert "points/s each as measured on 2 scans here" in plan
    assert written(out) == before
    # What is no longer asked for stays; whose neighbour is gone, or what was lost, is labelled again.
    first, second = sorted(out.glob("*.laz"))
    first.unlink()
    (scans / second.name).unlink()
    (plan,) = segment(segmenting(scans, checkpoint, out, dry_run=True))
    assert "1 scans to do (1 changed, 1 gone)" in plan
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
    assert proof["content"] == storage.fingerprint(str(tmp_path / scan.name))
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
    rows = [row for path in sorted((out / "review").iterdir()) for row in pq.read_table(path).to_pylist()]
    tiles = [row for row in rows if row["i"] is not None]
    assert len(tiles) > 2
    assert all(row["confidence"] < 1 for row in tiles)
    assert [row["scan"] for row in rows if row["i"] is None] == [stray.name], "its header says where it lies"
    with get_client(sync_client=True) as client:
        (artifact,) = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(like_="report-%morning"))
        )
    assert "Scans that need a look" in str(artifact.data)
    # A run that has nothing to do still says how things are.
    (out / "report.html").unlink()
    segment(segmenting(scans, checkpoint, out, **settings, retry_quarantined=False))
    assert "The most doubtful places" in (out / "report.html").read_text()
