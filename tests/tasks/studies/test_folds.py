"""Folds become split files once, and one that nothing can be learnt from is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from pointcloud.dataset.folds import Fold
from pointcloud.dataset.resplit import open_blocks
from pointcloud.dataset.splits import SplitRule
from pointcloud.errors import PointloomError
from tasks.studies.folds import split_into_folds
from tests.support.clouds import assert_one_sentence
from tests.support.datasets import write_dataset

SQUARES = [
    Fold(f"fold-{n}", SplitRule(val_fraction=0.3, area_size_m=8.0, num_folds=2, fold=n, seed=2))
    for n in range(2)
]


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    write_dataset(tmp_path / "blocks")
    return str(tmp_path / "blocks")


def split(dataset: str, folds: list[Fold], out: Path) -> dict[str, str]:
    with disable_run_logger():
        return split_into_folds.fn(dataset, folds, str(out))


def test_each_fold_is_written_once_and_tests_what_the_other_does_not(dataset: str, tmp_path: Path) -> None:
    files = split(dataset, SQUARES, tmp_path)
    assert list(files) == ["fold-0", "fold-1"]
    tested = [{block.tile for block in open_blocks(dataset, file).read("test")} for file in files.values()]
    assert all(tested)
    assert not tested[0] & tested[1]
    written = {file: Path(file).stat().st_mtime_ns for file in files.values()}
    assert split(dataset, SQUARES, tmp_path) == files
    assert {file: Path(file).stat().st_mtime_ns for file in files.values()} == written


def test_a_fold_without_ground_to_validate_on_is_named(dataset: str, tmp_path: Path) -> None:
    fold = Fold("fold-1-of-2", SplitRule(val_fraction=0.0, area_size_m=8.0, num_folds=2))
    with pytest.raises(PointloomError, match=r"fold 'fold-1-of-2' has no labelled val block") as error:
        split(dataset, [fold], tmp_path)
    assert_one_sentence(error, "use fewer folds")
    assert not (tmp_path / "folds").exists()
