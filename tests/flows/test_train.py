"""The train flow where it goes otherwise than well, and what it says of the test split."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from xml.dom.minidom import parseString as parse

import pytest

from flows.preprocess import preprocess
from flows.train import check, train
from models.network.deepgcn import DeepGCN
from models.recipes import recipe
from models.weights.checkpoint import RECORD, read_checkpoint
from pointcloud.dataset import store
from pointcloud.errors import PointloomError
from tasks.training.result import keep_best_before
from tests.flows.test_main_job import preprocessing, small_training
from tests.support.clouds import assert_one_sentence
from tests.support.prefect_server import artifacts_of

pytestmark = pytest.mark.usefixtures("ray_cluster")


def cut(survey: Path, out: Path, **changes: object) -> Path:
    preprocess(preprocessing([survey], out, **({"test_fraction": 0.2} | changes)))
    return out


@pytest.fixture(scope="module")
def blocks(survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cut(survey, tmp_path_factory.mktemp("train") / "blocks")


def test_the_test_split_is_scored_once_and_chooses_nothing(blocks: Path, tmp_path: Path) -> None:
    metrics = train(
        small_training(blocks, tmp_path / "checkpoint", ema_decay=0.5, accumulation=2, loss="lovasz")
    )
    checkpoint = read_checkpoint(str(tmp_path / "checkpoint"))
    assert checkpoint.metrics == metrics
    manifest = store.read_manifest(str(blocks))
    assert metrics["test"]["num_scored"] == sum(manifest.class_counts["test"])
    assert 0 <= metrics["test"]["miou"] <= 1
    best = max(checkpoint.history, key=lambda epoch: (epoch["val_miou"], epoch["epoch"]))
    assert (metrics["val_miou"], metrics["epoch"]) == (best["val_miou"], best["epoch"])
    assert all("test" not in key for epoch in checkpoint.history for key in epoch)
    assert checkpoint.provenance["training"]["loss"] == "lovasz"
    assert_watched(tmp_path / "checkpoint")


def assert_watched(out: Path) -> None:
    """Table, curves and confusion of the training into `out` show both epochs, and so do the event files."""
    found = {artifact.description: artifact for artifact in artifacts_of(str(out))}
    title = f"Training of {out}"
    rows = json.loads(found[f"{title}: metrics by epoch"].data)
    assert [row["epoch"] for row in rows] == [2, 1]
    assert {"train_loss", "val_loss", "val_miou", "IoU ground"} <= rows[0].keys()
    for picture in ("curves", "confusion"):
        kind, _, svg = found[f"{title}: {picture}"].data.partition(",")
        assert kind == "data:image/svg+xml;base64"
        parse(b64decode(svg))
    (events,) = (out / "tensorboard").glob("*/events.out.tfevents.*")
    assert b"val_miou" in events.read_bytes()


@pytest.mark.slow
def test_a_loss_of_nan_stops_the_training_once_and_names_blocks(blocks: Path, tmp_path: Path) -> None:
    with pytest.raises(PointloomError, match=r"became (NaN|infinite) in epoch 1 at scan '.*' tile") as error:
        train(small_training(blocks, tmp_path / "checkpoint", learning_rate=1e30, clip_norm=0.0))
    assert_one_sentence(error, "smaller learning_rate")
    assert not (tmp_path / "checkpoint" / RECORD).exists(), "no epoch was complete"


def test_the_best_epoch_before_is_kept_and_an_older_checkpoint_left_alone(
    blocks: Path, tmp_path: Path
) -> None:
    job = small_training(blocks, tmp_path / "checkpoint").job()
    manifest, weights = store.read_manifest(str(blocks)), DeepGCN(job.network).state_dict()
    history = [{"epoch": 1, "val_miou": 0.5}, {"epoch": 2, "val_miou": 0.25}]
    assert keep_best_before(job, manifest, {"best": weights, "history": history}, "the loss became NaN.")
    kept = read_checkpoint(job.out)
    kept.build_network()
    assert kept.metrics == {"val_miou": 0.5, "epoch": 1}
    assert kept.provenance["stopped"] == "the loss became NaN."
    assert "key" not in kept.provenance, "it is not a finished training"
    before = (tmp_path / "checkpoint" / RECORD).read_bytes()
    assert not keep_best_before(job, manifest, {"best": weights, "history": history[:1]}, "again.")
    assert (tmp_path / "checkpoint" / RECORD).read_bytes() == before


def test_modern_fuses_nothing_on_sparse_surveys_unless_asked(blocks: Path, tmp_path: Path) -> None:
    def width(**changes: object) -> int:
        return small_training(blocks, tmp_path, **changes).job().network.fusion_channels

    assert width(fusion_channels=None) == 0
    assert width(fusion_channels=None, recipe="paper") == 256
    assert width(fusion_channels=32) == 32


def test_recipes_are_named_and_changed_field_by_field(blocks: Path, tmp_path: Path) -> None:
    assert small_training(blocks, tmp_path).job().training == recipe(
        "modern", airborne=True, sparse=True, epochs=2
    )
    changed = small_training(blocks, tmp_path, recipe="paper", augment=True, batch_size=4).job().training
    assert changed == recipe("paper", epochs=2, augment=True, batch_size=4)
    given = (
        small_training(blocks, tmp_path, warm_up=0.3, halving_epochs=7, focal_gamma=1.0, clip_norm=0.0)
        .job()
        .training
    )
    other = {"epochs": 2, "warm_up": 0.3, "halving_epochs": 7, "focal_gamma": 1.0, "clip_norm": 0.0}
    assert given == recipe("modern", airborne=True, sparse=True, **other)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 3, "num_workers": 2}, "multiple of 2"),
        ({"accumulation": 3}, "multiple of 3"),
        ({"batch_size": 4, "num_workers": 4, "min_workers": 2}, "multiple of 3"),
        ({"min_workers": 2}, "min_workers 2 is more than num_workers 1"),
        ({"features": ["xyz", "rgb"]}, "red, green, blue"),
        ({"learning_rate": -1.0}, "learning_rate"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_said_before_work_starts(
    blocks: Path, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    with pytest.raises(PointloomError, match=said) as error:
        check(small_training(blocks, tmp_path, **change))
    assert_one_sentence(error, "")


@pytest.mark.parametrize(("code", "num_classes"), [(2, 1), (17, 0)], ids=["one class", "no label"])
def test_fewer_than_two_classes_are_said_before_work_starts(
    survey: Path, tmp_path: Path, code: int, num_classes: int
) -> None:
    scheme = tmp_path / "scheme.json"
    classes = [
        {"name": f"class {c}", "source_codes": [c], "code": c, "colour": "#888888"} for c in (code, 18)
    ]
    scheme.write_text(json.dumps({"name": "bridges", "classes": classes}))
    blocks = cut(survey, tmp_path / "blocks", label_scheme=str(scheme))
    with pytest.raises(PointloomError, match=rf"of {num_classes} class\(es\)") as error:
        check(small_training(blocks, tmp_path / "checkpoint"))
    assert_one_sentence(error, "label scheme")
