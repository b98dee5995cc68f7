"""The flows crossval and ablate: each training once, one table, what is finished is kept, what cannot be is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.dom.minidom import parse

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows import ablate as ablation
from flows import crossval as crossvalidation
from flows.ablate import AblateParameters, ablate
from flows.crossval import CrossvalParameters, crossval
from flows.preprocess import preprocess
from models.metrics import Scores
from models.weights.checkpoint import RECORD, read_checkpoint
from pointcloud.dataset import store
from pointcloud.errors import PointloomError
from pointcloud.simulate.rooms import RoomsConfig, write_rooms
from tests.flows.test_main_job import preprocessing
from tests.support.clouds import assert_one_sentence
from tests.support.prefect_server import artifacts_of

pytestmark = pytest.mark.usefixtures("ray_cluster")

SMALL = {
    "num_layers": 3, "channels": 8, "k": 4, "fusion_channels": 16, "epochs": 1, "cpus_per_worker": 1,
    "features": ["xyz", "height"], "recipe": "modern",
}  # fmt: skip


@pytest.fixture(scope="module")
def blocks(survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "blocks"
    preprocess(preprocessing([survey], out))
    return out


def folds(dataset: Path, out: Path, **changes: object) -> CrossvalParameters:
    settings = SMALL | {"num_folds": 2, "area_size_m": 20.0, "trainings_at_once": 2} | changes
    return CrossvalParameters(dataset=str(dataset), out=str(out), **settings)


def rows(dataset: Path, out: Path, *names: str, **changes: object) -> AblateParameters:
    return AblateParameters(dataset=str(dataset), out=str(out), rows=list(names), **(SMALL | changes))


def written(out: Path) -> dict[str, int]:
    """When the checkpoint of each finished training was written; of others there is the best so far."""
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in sorted(out.glob(f"trainings/*/{RECORD}"))
        if "unfinished" not in read_checkpoint(str(path.parent), weights=False).provenance
    }


def test_each_fold_trains_once_and_all_of_them_are_one_table(blocks: Path, tmp_path: Path) -> None:
    assert crossval(folds(blocks, tmp_path)) == f"{tmp_path}/table.parquet"
    one, other, mean, together = pq.read_table(tmp_path / "table.parquet").to_pylist()
    manifest = store.read_manifest(str(blocks))
    everything = np.sum(list(manifest.class_counts.values()), axis=0)
    names = manifest.label_scheme.names
    confusion = np.array(together["test_confusion"])
    # Every labelled point of the base grid tests once: it is in the core of one block.
    assert confusion.sum(axis=1).tolist() == everything.tolist()
    assert (np.array(one["test_confusion"]) + other["test_confusion"] == confusion).all()
    assert together["test_miou"] == Scores.from_confusion(confusion, names).miou
    assert mean["test_miou"] == pytest.approx((one["test_miou"] + other["test_miou"]) / 2)
    checkpoint = read_checkpoint(one["checkpoint"])
    assert checkpoint.metrics["test"]["miou"] == one["test_miou"]
    assert checkpoint.provenance["split_rule"]["fold"] == 0
    assert checkpoint.statistics != read_checkpoint(other["checkpoint"]).statistics
    for picture in ("curves", "confusion"):
        parse(str(tmp_path / f"{picture}.svg"))
    text = (tmp_path / "table.md").read_text()
    assert text in [artifact.data for artifact in artifacts_of(str(tmp_path))]

    before, table = written(tmp_path), (tmp_path / "table.parquet").read_bytes()
    assert list(before) == ["fold-1-of-2", "fold-2-of-2"]
    crossval(folds(blocks, tmp_path))
    assert written(tmp_path) == before, "a finished fold is kept"
    assert (tmp_path / "table.parquet").read_bytes() == table


@pytest.mark.slow
def test_each_of_six_areas_tests_what_the_others_trained(tmp_path: Path) -> None:
    """S3DIS's six folds, on rooms simulated in its layout."""
    folder = tmp_path / "rooms"
    write_rooms(RoomsConfig(areas=(1, 2, 3, 4, 5, 6), rooms_per_area=1, points_per_m2=4.0), folder)
    settings = {"label_scheme": "s3dis", "tile_size_m": 4.0, "thin": False}
    preprocess(preprocessing([folder], tmp_path / "blocks", **settings))
    names = store.read_manifest(str(tmp_path / "blocks")).label_scheme.names
    # One line is one point; not thinned, each is in the core of one block.
    points = {
        f"Area_{n}": sum(
            len(f.read_text().splitlines()) for f in folder.glob(f"Area_{n}/*/Annotations/*.txt")
        )
        for n in range(1, 7)
    }
    crossval(folds(tmp_path / "blocks", tmp_path / "study", by="areas", num_folds=0))
    *areas, mean, together = pq.read_table(tmp_path / "study" / "table.parquet").to_pylist()
    assert [row["state"] for row in areas] == ["done"] * 6
    assert [np.sum(row["test_confusion"]) for row in areas] == list(points.values())
    for row, area in zip(areas, points, strict=True):
        rule = read_checkpoint(row["checkpoint"], weights=False).provenance["split_rule"]
        assert all(scan.startswith(area) for scan in rule["test_scans"])
        assert not any(scan.startswith(area) for scan in rule["val_scans"])
        assert len(rule["val_scans"]) == 1
    assert mean["test_miou"] == pytest.approx(np.mean([row["test_miou"] for row in areas]))
    confusion = np.sum([row["test_confusion"] for row in areas], axis=0)
    assert together["test_confusion"] == confusion.tolist()
    assert together["test_miou"] == Scores.from_confusion(confusion, names).miou


def test_rows_of_one_network_are_trained_once_and_a_failure_stops_no_other(
    blocks: Path, tmp_path: Path
) -> None:
    # What stands in the way of one training: a file where its folder should be.
    (tmp_path / "trainings").mkdir()
    (tmp_path / "trainings" / "gin").write_text("")
    with pytest.raises(PointloomError, match=r"1 of 3 trainings failed \(gin\)"):
        ablate(rows(blocks, tmp_path, "reference", "k-4", "gin"))
    assert list(written(tmp_path)) == ["reference"], "k is 4 in the reference"
    reference, k_4, gin = pq.read_table(tmp_path / "table.parquet").to_pylist()
    assert reference["val_miou"] == k_4["val_miou"]
    assert reference["test_miou"] is None, "the dataset has no test split"
    assert [row["state"] for row in (reference, k_4, gin)] == ["done", "done", "failed"]
    assert "gin failed: " in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"by": "areas", "num_folds": 3}, r"3 fold\(s\) of 2 area\(s\)"),
        ({"by": "areas", "num_folds": 2}, "leaves 1 scan"),
        ({"num_folds": 1}, "two folds or more"),
        ({"only": ["Area_5"]}, "no fold 'Area_5'; expected some of fold-1-of-2"),
        ({"features": ["xyz", "rgb"]}, "red, green, blue"),
        ({"batch_size": 3, "accumulation": 2}, "multiple of 2"),
    ],
    ids=str,
)
def test_folds_that_cannot_be_are_said_before_work_starts(
    blocks: Path, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    with pytest.raises(PointloomError, match=said) as error:
        crossvalidation.check(folds(blocks, tmp_path, **change))
    assert_one_sentence(error, "")


def test_rows_that_there_are_not_are_said_before_work_starts(blocks: Path, tmp_path: Path) -> None:
    with pytest.raises(PointloomError, match="no row 'deep'; expected some of reference") as error:
        ablation.check(rows(blocks, tmp_path, "deep"))
    assert_one_sentence(error, "")


def test_blocks_without_a_label_are_said_before_work_starts(survey: Path, tmp_path: Path) -> None:
    scheme = tmp_path / "scheme.json"
    scheme.write_text(
        '{"name": "none", "classes": [{"name": "c", "source_codes": [99], "code": 99, "colour": "#888888"}]}'
    )
    preprocess(preprocessing([survey], tmp_path / "blocks", label_scheme=str(scheme)))
    with pytest.raises(PointloomError, match="no labelled block") as error:
        crossvalidation.check(folds(tmp_path / "blocks", tmp_path))
    assert_one_sentence(error, "label scheme")
    with pytest.raises(PointloomError, match=r"0 class\(es\)"):
        ablation.check(rows(tmp_path / "blocks", tmp_path, "reference"))


def test_a_fold_without_ground_to_test_is_named(blocks: Path, tmp_path: Path) -> None:
    with pytest.raises(PointloomError, match=r"fold 'fold-\d-of-4' has no labelled \w+ block") as error:
        crossval(folds(blocks, tmp_path, num_folds=4, area_size_m=400.0))
    assert_one_sentence(error, "area_size_m")


@pytest.mark.slow
def test_a_killed_study_goes_on_with_what_is_not_finished(blocks: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "flows", "crossval", "--dataset", str(blocks), "--out", str(tmp_path), "--num-folds", "3",
        "--area-size-m", "10", "--num-layers", "3", "--channels", "8", "--k", "4", "--fusion-channels", "16",
        "--features", "xyz", "height", "--epochs", "4", "--cpus-per-worker", "1",
    ]  # fmt: skip
    study = subprocess.Popen(command, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while not written(tmp_path):
            assert study.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        os.killpg(study.pid, signal.SIGKILL)
        study.wait(timeout=30)
    before = written(tmp_path)
    assert len(before) < 3
    subprocess.run(command, check=True, timeout=400)
    assert len(written(tmp_path)) == 3
    assert written(tmp_path).items() >= before.items(), "what was finished is kept"
    states = [row["state"] for row in pq.read_table(tmp_path / "table.parquet").to_pylist()]
    assert states == ["done"] * 5
