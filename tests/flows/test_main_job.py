"""The main job on a simulated survey: preprocess → train → segment → evaluate, with real Prefect and real Ray."""

from __future__ import annotations

import json
from pathlib import Path

import laspy
import numpy as np
import pytest

from flows.evaluate import EvaluateParameters, evaluate
from flows.preprocess import PreprocessParameters, preprocess
from flows.segment import SegmentParameters, segment
from flows.train import TrainParameters, train
from models.weights.checkpoint import RECORD, fingerprint, read_checkpoint
from pointcloud.dataset import store
from pointcloud.delivery.proof import find_difference
from pointcloud.errors import PointloomError
from pointcloud.simulate.rooms import RoomsConfig, write_rooms
from tests.support import broken_files

pytestmark = pytest.mark.usefixtures("ray_cluster")


def preprocessing(scans: list[Path], out: Path, **changes: object) -> PreprocessParameters:
    settings = {
        "tile_size_m": 10.0,
        "halo_m": 1.0,
        "voxel_size_m": 1.0,
        "overlap": 1,
        "processes": 1,
    } | changes
    return PreprocessParameters(scans=[str(s) for s in scans], out=str(out), **settings)


def small_training(dataset: Path, out: Path, **changes: object) -> TrainParameters:
    settings = {
        "num_layers": 3,
        "channels": 8,
        "k": 4,
        "fusion_channels": 16,
        "epochs": 2,
        "cpus_per_worker": 1,
    }
    return TrainParameters(dataset=str(dataset), out=str(out), **(settings | changes))


@pytest.fixture(scope="module")
def done(survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole main job was done once: blocks/, checkpoint/, labelled/, report.html."""
    root = tmp_path_factory.mktemp("job")
    preprocess(preprocessing([survey], root / "blocks"))
    train(small_training(root / "blocks", root / "checkpoint"))
    scans, labelled = [str(survey / "*.laz")], str(root / "labelled")
    segment(
        SegmentParameters(scans=scans, checkpoint=str(root / "checkpoint"), out=labelled, cpus_per_actor=1)
    )
    evaluate(
        EvaluateParameters(
            labelled=[labelled], truth=scans, out=str(root), checkpoint=str(root / "checkpoint")
        )
    )
    return root


def test_every_scan_comes_back_labelled_and_otherwise_unchanged(done: Path, survey: Path) -> None:
    scans = sorted(survey.glob("*.laz"))
    assert len(scans) == 2
    codes = {label.code for label in read_checkpoint(str(done / "checkpoint")).label_scheme.classes}
    for scan in scans:
        copy = laspy.read(done / "labelled" / scan.name)
        assert find_difference(str(scan), str(done / "labelled" / scan.name)) is None
        assert set(np.unique(np.asarray(copy.classification))) <= codes
        confidence = np.asarray(copy["confidence"])
        assert confidence.min() > 0
        assert confidence.max() <= 1
        assert len(np.unique(confidence)) > 5


def test_scores_count_every_point_with_a_class(done: Path, survey: Path) -> None:
    scores = json.loads((done / "scores.json").read_text())
    truth = np.concatenate([np.asarray(laspy.read(p).classification) for p in sorted(survey.glob("*.laz"))])
    labelled = [
        np.asarray(laspy.read(done / "labelled" / p.name).classification)
        for p in sorted(survey.glob("*.laz"))
    ]
    scored = np.isin(truth, (2, 3, 4, 5, 6, 9))
    assert scores["num_scored"] == scored.sum()
    vegetation = np.isin(truth, (3, 4, 5))
    right = (np.concatenate(labelled)[scored] == np.where(vegetation, 5, truth)[scored]).mean()
    assert scores["overall_accuracy"] == pytest.approx(right)
    assert "plotly" in (done / "report.html").read_text()


def test_a_second_run_does_nothing_again(done: Path, survey: Path) -> None:
    outputs = [
        done / "checkpoint" / RECORD,
        *(done / "labelled").glob("*.laz"),
        *(done / "blocks/shards").iterdir(),
    ]
    before = {path: path.stat().st_mtime_ns for path in outputs}
    preprocess(preprocessing([survey], done / "blocks"))
    train(small_training(done / "blocks", done / "checkpoint"))
    segment(
        SegmentParameters(
            scans=[str(survey)], checkpoint=str(done / "checkpoint"), out=str(done / "labelled")
        )
    )
    assert {path: path.stat().st_mtime_ns for path in outputs} == before


@pytest.mark.slow
def test_another_checkpoint_labels_again(done: Path, survey: Path, tmp_path: Path) -> None:
    scan = sorted(survey.glob("*.laz"))[0]
    train(small_training(done / "blocks", tmp_path / "other", seed=1, epochs=1))
    assert fingerprint(str(tmp_path / "other")) != fingerprint(str(done / "checkpoint"))
    parameters = {"scans": [str(scan)], "out": str(tmp_path / "labelled"), "cpus_per_actor": 1}
    segment(SegmentParameters(checkpoint=str(done / "checkpoint"), **parameters))
    first = (tmp_path / "labelled" / scan.name).read_bytes()
    segment(SegmentParameters(checkpoint=str(tmp_path / "other"), **parameters))
    assert (tmp_path / "labelled" / scan.name).read_bytes() != first


def test_a_changed_setting_cuts_again(survey: Path, tmp_path: Path) -> None:
    preprocess(preprocessing([survey], tmp_path))
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").glob("*")}
    preprocess(preprocessing([survey], tmp_path))
    assert all(path.stat().st_mtime_ns == written for path, written in shards.items())
    preprocess(preprocessing([survey], tmp_path, tile_size_m=20.0))
    assert all(path.stat().st_mtime_ns != written for path, written in shards.items())
    assert store.read_manifest(str(tmp_path)).block_config.tile_size_m == 20.0


def test_a_bad_scan_is_quarantined_by_name_and_the_rest_goes_on(
    survey: Path, done: Path, tmp_path: Path
) -> None:
    good = sorted(survey.glob("*.laz"))[0]
    bad = broken_files.truncated_laz(tmp_path)
    with pytest.raises(PointloomError, match=bad.name):
        preprocess(preprocessing([good, bad], tmp_path / "blocks"))
    manifest = store.read_manifest(str(tmp_path / "blocks"))
    assert [s.scan for s in manifest.shards] == [good.name]
    assert bad.name in manifest.quarantined
    # Allowed to, the flow ends well.
    preprocess(preprocessing([good, bad], tmp_path / "blocks", max_quarantined=1))
    parameters = SegmentParameters(
        scans=[str(good), str(bad)],
        checkpoint=str(done / "checkpoint"),
        out=str(tmp_path / "labelled"),
        cpus_per_actor=1,
    )
    with pytest.raises(PointloomError, match=bad.name):
        segment(parameters)
    assert [p.name for p in (tmp_path / "labelled").glob("*.la?")] == [good.name]
    record = json.loads((tmp_path / "labelled/ledger/segment" / f"{bad.name}.json").read_text())
    assert record["state"] == "quarantined"
    assert bad.name in record["error"]


def test_rooms_become_blocks(tmp_path: Path) -> None:
    write_rooms(RoomsConfig(seed=0), tmp_path / "rooms")
    rooms = sorted(p.parent for p in (tmp_path / "rooms").glob("*/*/Annotations"))
    preprocess(
        preprocessing(
            rooms[:2], tmp_path / "blocks", label_scheme="s3dis", tile_size_m=2.0, voxel_size_m=0.1, halo_m=0.2,
            ground_window_m=2.0,
        )
    )  # fmt: skip
    manifest = store.read_manifest(str(tmp_path / "blocks"))
    assert set(manifest.attributes) == {"red", "green", "blue"}
    assert np.count_nonzero(manifest.class_counts["train"]) >= 8
