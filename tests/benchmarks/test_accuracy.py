"""The accuracy benchmark on a tiny simulated survey: both sides really train, and every point counts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pyproj import CRS

pytest.importorskip("jakteristics", reason="pip install 'pointloom[bench]'")

from benchmarks import accuracy
from benchmarks.forest import Forest, ForestConfig, point_spacing_m
from models.recipes import RECIPES
from pointcloud.cloud import Cloud
from pointcloud.formats.reader import read_cloud, read_header
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labels import PRESETS
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig

GVB = PRESETS["ground-vegetation-building"]


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adjacent tiles of 60 m."""
    config = SurveyConfig(seed=3, tiles=(2, 1), tile_size_m=60.0, points_per_m2=3.0)
    return write_survey(config, tmp_path_factory.mktemp("survey"))


@pytest.fixture(autouse=True)
def _same_threads_afterwards():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def small(train: Path, *more: str) -> list[str]:
    return [
        "--train", str(train), "--classes", GVB.name, "--layers", "2", "--channels", "8", "--k", "4", "--voxel-m", "1",
        "--overlap", "1", "--epochs", "40", "--ema-decay", "0.8", "--threads", "1", "--trees", "5", *more,
    ]  # fmt: skip


def last_line(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
def test_both_sides_are_trained_and_scored_on_every_point(tiles, capsys):
    assert accuracy.main(small(tiles[0], "--test", str(tiles[1]))) == 0
    record = last_line(capsys)
    for side in (record["ours"], record["random_forest"]):
        assert set(side) == {"miou", "oa", "iou", "absent"}
        assert {*side["iou"], *side["absent"]} == set(GVB.names)
        assert side["miou"] == pytest.approx(np.mean(list(side["iou"].values())), abs=1e-4)
    # Tiny as both are, they do better than to guess one of three classes.
    assert record["random_forest"]["oa"] > 0.5
    assert record["ours"]["oa"] > 0.34
    assert record["train_seconds"] > 0
    assert record["points"] + record["points_without_class"] == read_header(str(tiles[1])).num_points


def test_without_a_test_only_the_validation_is_scored(tiles, capsys):
    assert accuracy.main(small(tiles[0])) == 0
    record = last_line(capsys)
    assert 0 < record["val_miou"] <= 1
    assert not {"ours", "random_forest", "points"} & set(record)


def test_sizes_follow_from_the_density():
    dense = accuracy.sizes_for(0.2, overlap=1)
    assert dense[:3] == (0.25, 12.0, 2.0)
    assert {"shape_1m", "shape_8m", "echoes_1m", "echoes_4m"} < set(dense[3])
    voxel_m, tile_m, halo_m, features = accuracy.sizes_for(1.85, overlap=2)
    assert (voxel_m, tile_m, halo_m) == (1.0, 148.0, 18.5)
    shapes, echoes = (
        ["shape_4m", "shape_8m", "shape_16m", "shape_32m"],
        ["echoes_4m", "echoes_8m", "echoes_16m"],
    )
    assert features == ["xyz", "height", "returns", *shapes, *echoes]
    assert len(set(features)) == len(features)
    for spacing in (0.01, 0.07, 0.31, 3.0, 90.0):
        voxel_m, tile_m, halo_m, _ = accuracy.sizes_for(spacing, overlap=3)
        BlockConfig(tile_size_m=tile_m, halo_m=halo_m, voxel_size_m=voxel_m, overlap=3)


def test_with_a_test_everything_trains_and_the_last_epoch_is_kept(tiles, capsys):
    assert accuracy.main(small(tiles[0], "--test", str(tiles[1]))) == 0
    record = last_line(capsys)
    assert record["val_miou"] is None
    assert record["epoch"] == record["epochs"] == 40
    assert record["options"]["val_fraction"] == 0


def test_the_paper_recipe_trains_as_published_over_the_epochs_given(tiles, capsys, monkeypatch):
    plans = []
    train = accuracy.train_on_scans
    monkeypatch.setattr(
        accuracy, "train_on_scans", lambda *given, **more: (plans.append(given[3]), train(*given, **more))[1]
    )
    options = [
        option for option in small(tiles[0], "--recipe", "paper") if option not in ("--ema-decay", "0.8")
    ]
    assert accuracy.main(options) == 0
    (plan,) = plans
    assert plan == replace(RECIPES["paper"], epochs=40, halving_epochs=8)
    assert accuracy.main(small(tiles[0], "--loss", "lovasz", "--relief", "0.1", "--rotations", "2")) == 0
    assert (plans[1].loss, plans[1].batch_size, plans[1].learning_rate) == ("lovasz", 2, 3e-3)
    assert plans[1].relief == 0.1
    assert plans[1].class_weights


@pytest.mark.parametrize(
    ("given", "spacing", "expected"),
    [
        ((), 2.0, (False, 0.8, 0)),
        (("--class-weights", "--crop", "0.1", "--fusion-channels", "64"), 2.0, (True, 0.1, 64)),
        ((), 0.5, (None, None, 256)),
        (("--recipe", "paper", "--channels", "16"), 2.0, (None, None, 128)),
    ],
)
def test_sparse_scans_are_cropped_not_weighed_and_not_fused_unless_asked(given, spacing, expected):
    options = accuracy.arguments(["--train", "a", "--classes", "b", *given])
    accuracy.complete_for(options, spacing, set())
    assert (options.class_weights, options.crop, options.fusion_channels) == expected


@pytest.mark.parametrize(
    ("given", "known", "expected"),
    [
        ((), {"return_number", "number_of_returns"}, 0.6),
        ((), {"red", "green", "blue"}, None),
        (("--relief", "0"), {"return_number", "number_of_returns"}, 0.0),
        (("--recipe", "paper"), {"return_number", "number_of_returns"}, None),
    ],
)
def test_scans_with_returns_are_laid_on_relief_unless_asked_otherwise(given, known, expected):
    options = accuracy.arguments(["--train", "a", "--classes", "b", *given])
    accuracy.complete_for(options, 0.5, known)
    assert options.relief == expected


def test_minutes_become_epochs(tiles, capsys):
    assert accuracy.main(small(tiles[0], "--epochs", "0", "--minutes", "0.0001")) == 0
    assert last_line(capsys)["epochs"] == 1


def test_steps_become_whole_epochs(tiles, capsys):
    more = ("--epochs", "0", "--steps", "7", "--tile-m", "60", "--halo-m", "2", "--batch-size", "1")
    assert accuracy.main(small(tiles[0], *more)) == 0
    out = capsys.readouterr().out
    blocks = int(out.split("train: ")[1].split(" blocks")[0])
    assert json.loads(out.splitlines()[-1])["epochs"] == max(1, 7 // blocks)


def test_scores_are_those_of_a_confusion_made_by_hand(capsys):
    # Two scans, one confusion: rows truth, columns predicted; building is absent, one true point is not scored.
    truth = {"a": np.array([0, 0, 0, 1], np.int8), "b": np.array([1, 1, -1], np.int8)}
    labels = {"a": np.array([0, 0, 1, 1]), "b": np.array([1, 0, 2])}
    record = accuracy.summary("by hand", accuracy.score(labels, truth, GVB))
    # ground: 2 right, 1 missed, 1 too many; vegetation the same.
    assert record["iou"] == {"ground": 0.5, "vegetation": 0.5}
    assert (record["miou"], record["oa"], record["absent"]) == (0.5, round(4 / 6, 4), ["building"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("--classes", "s3dis-by-mistake"), "no label scheme"),
        (("--features", "xyz", "rgb"), "has no red, green, blue"),
        (("--features", "height"), "expected xyz first"),
        (("--epochs", "0", "--minutes", "0"), "steps and minutes, positive"),
        (("--voxel-m", "0.3", "--tile-m", "16"), "must be a multiple of"),
    ],
)
def test_bad_settings_are_one_sentence(tiles, capsys, change, sentence):
    assert accuracy.main(small(tiles[0], *change)) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_test_scan_among_the_training_scans_is_refused(tiles, capsys):
    assert accuracy.main(small(tiles[0], "--test", str(tiles[0]))) == 2
    assert "among the training and the test scans" in capsys.readouterr().err


def test_a_test_scan_without_a_feature_is_refused_before_the_training(tiles, capsys):
    change = ("--test", str(tiles[1]), "--features", "xyz", "rgb")
    assert accuracy.main(small(tiles[0], *change)) == 2
    assert "test scan 'simulated_652060_6862000.laz' has no red, green, blue" in capsys.readouterr().err


def test_the_forest_sees_the_same_in_feet_and_near_the_origin(tiles):
    cloud = read_cloud(str(tiles[0]))
    corner, foot = np.floor(cloud.xyz.min(axis=0)), 1200 / 3937
    feet = Cloud((cloud.xyz - corner) / foot, cloud.attributes, CRS.from_epsg(2272))  # US survey feet
    assert point_spacing_m(feet) == pytest.approx(point_spacing_m(cloud), rel=1e-6)
    assert (
        3**-0.5 * 0.7 < point_spacing_m(cloud) < 3**-0.5 * 1.1
    )  # 3 pulses per m², and some have more returns
    forest = Forest([cloud], GVB, ForestConfig(trees=1))
    there, here = forest.features(cloud), forest.features(feet)
    assert there.shape == (len(cloud), 1 + 3 + 4 * 13)
    np.testing.assert_allclose(there[:, :4], here[:, :4], atol=1e-3)
    same = np.isclose(there[:, 4:], here[:, 4:], rtol=1e-2, atol=1e-3, equal_nan=True)
    assert same.mean() > 0.99
