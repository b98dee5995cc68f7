"""What is checked of a dataset before a training starts. The task itself: tests/flows/test_train.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pointcloud.dataset import store
from pointcloud.errors import PointloomError, SchemaError
from tasks.runtime.cpus import usable_cpus
from tasks.training.job import TrainJob
from tasks.training.train import check_dataset, check_splits, cpus_of_each
from tests.support.clouds import assert_one_sentence


def test_features_are_those_asked_for_or_those_that_suit_the_scans(small_job: TrainJob) -> None:
    manifest, features = check_dataset(small_job.dataset, ("xyz",))
    assert features == ("xyz",)
    assert manifest == store.read_manifest(small_job.dataset)
    assert "xyz" in check_dataset(small_job.dataset, ())[1]


def test_a_feature_that_the_scans_cannot_give_is_named(small_job: TrainJob) -> None:
    with pytest.raises(PointloomError, match="have no red, green, blue") as error:
        check_dataset(small_job.dataset, ("xyz", "rgb"))
    assert_one_sentence(error, "leave the feature out")


def test_an_attribute_without_statistics_cannot_be_standardised(small_job: TrainJob) -> None:
    """Only scans outside the training split have it."""
    assert "intensity" not in store.read_manifest(small_job.dataset).statistics.mean
    with pytest.raises(PointloomError, match="have no intensity"):
        check_dataset(small_job.dataset, ("xyz", "intensity"))


def test_no_dataset_is_said(tmp_path: Path) -> None:
    with pytest.raises(SchemaError):
        check_dataset(str(tmp_path), ())


def test_nothing_to_validate_on_is_said(small_job: TrainJob) -> None:
    blocks = small_job.blocks()
    counts = {"train": [5, 5, 0], "val": [1, 0, 0]}
    check_splits(replace(blocks, manifest=replace(blocks.manifest, class_counts=counts)))
    for missing in ({"train": [5, 5, 0]}, {"train": [5, 5, 0], "val": [0, 0, 0]}):
        with pytest.raises(PointloomError, match="no labelled validation block") as error:
            check_splits(replace(blocks, manifest=replace(blocks.manifest, class_counts=missing)))
        assert_one_sentence(error, "val_fraction")


def test_cpus_are_shared_out_unless_a_number_is_given() -> None:
    assert cpus_of_each(2, 3) == 3
    assert cpus_of_each(1, 0) == usable_cpus()
    assert cpus_of_each(10_000, 0) == 1
