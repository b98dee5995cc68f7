"""Folds: every area tests once, nothing tests what it has trained, and what cannot be is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointcloud.dataset.folds import folds_of_areas, folds_of_squares
from pointcloud.dataset.splits import TEST, TRAIN, VAL, SplitRule, plan_split
from pointcloud.errors import PointloomError
from tests.support.clouds import assert_one_sentence

S3DIS = [
    f"Area_{area}/{room}_{n}" for area in range(1, 7) for room in ("hallway", "office") for n in (1, 2, 3)
]
_TILE = np.zeros((1, 2), np.int64), np.ones((1, 1), np.int64)


def split_of(scan: str, rule: SplitRule) -> str:
    return plan_split(scan, *_TILE, rule, 1.0)[0]


def test_six_fold() -> None:
    folds = folds_of_areas(S3DIS)
    assert [fold.name for fold in folds] == [f"Area_{n}" for n in range(1, 7)]
    for fold in folds:
        splits = {scan: split_of(scan, fold.rule) for scan in S3DIS}
        assert {scan for scan, split in splits.items() if split == TEST} == {
            scan for scan in S3DIS if scan.startswith(f"{fold.name}/")
        }
        # Whole rooms: a fifth of the other thirty.
        assert sum(split == VAL for split in splits.values()) == 6
    assert len({fold.rule.val_scans for fold in folds}) > 1
    assert folds == folds_of_areas(S3DIS[::-1])
    assert folds_of_areas(S3DIS, seed=1)[0].rule.val_scans != folds[0].rule.val_scans


@given(st.integers(2, 9), st.integers(2, 9), st.floats(0.05, 0.5), st.integers(0, 5))
def test_every_scan_tests_once_and_each_fold_has_all_splits(
    num_areas: int, num_folds: int, val_fraction: float, seed: int
) -> None:
    scans = [f"[{area}]*/{room}" for area in range(num_areas) for room in range(3)]
    if num_folds > num_areas:
        with pytest.raises(PointloomError, match=rf"{num_folds} fold\(s\) of {num_areas} area\(s\)"):
            folds_of_areas(scans, num_folds, val_fraction, seed)
        return
    folds = folds_of_areas(scans, num_folds, val_fraction, seed)
    tested = [scan for fold in folds for scan in scans if split_of(scan, fold.rule) == TEST]
    assert sorted(tested) == sorted(scans)
    for fold in folds:
        assert {split_of(scan, fold.rule) for scan in scans} == {TRAIN, VAL, TEST}


def test_scans_without_a_folder_are_areas_of_their_own() -> None:
    assert [f.name for f in folds_of_areas(["a.laz", "b.laz", "c.laz"])] == ["a.laz", "b.laz", "c.laz"]


@pytest.mark.parametrize(
    ("scans", "num_folds", "val_fraction", "said"),
    [
        (S3DIS, 7, 0.2, "at most as many as there are areas"),
        (S3DIS, 1, 0.2, "give 2 or more"),
        (["a/1"], 0, 0.2, "by=squares"),
        (["a/1", "b/1"], 0, 0.2, "two or more"),
        (S3DIS, 0, 0.0, "validation picks the epoch"),
    ],
)
def test_folds_that_cannot_be(scans: list[str], num_folds: int, val_fraction: float, said: str) -> None:
    with pytest.raises(PointloomError, match=said) as error:
        folds_of_areas(scans, num_folds, val_fraction)
    assert_one_sentence(error, "")


def test_squares_part_the_ground() -> None:
    folds = folds_of_squares(10.0, 4)
    assert [fold.name for fold in folds][-1] == "fold-4-of-4"
    tiles = np.stack(np.meshgrid(np.arange(20), np.arange(20)), axis=-1).reshape(-1, 2)
    counts = np.ones((len(tiles), 1), np.int64)
    found = np.array([plan_split("a", tiles, counts, fold.rule, 5.0) for fold in folds])
    assert ((found == TEST).sum(axis=0) == 1).all()
    assert len(folds_of_squares(10.0)) == 5
    with pytest.raises(PointloomError, match="area_size_m"):
        folds_of_squares(0.0)
