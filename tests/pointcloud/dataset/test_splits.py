"""Train and validation lie apart on the ground, and what each holds does not depend on chance."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointcloud.blocks.block import Block
from pointcloud.cloud import Cloud
from pointcloud.dataset.splits import (
    SPLITS,
    TEST,
    TRAIN,
    UNUSED,
    VAL,
    SplitRule,
    plan_split,
    split_of_shifted,
)
from pointcloud.errors import PointloomError
from tests.support.clouds import SMALL, assert_one_sentence, cut, make_cloud


def of_five(fold: int, num_folds: int = 5, val_fraction: float = 0.2, seed: int = 0) -> SplitRule:
    return SplitRule(val_fraction=val_fraction, area_size_m=48.0, num_folds=num_folds, fold=fold, seed=seed)


def assign(scan: str, blocks: list[Block], rule: SplitRule) -> list[str]:
    """The split of each block of one scan, all of them at hand. Areas need `plan_split`."""
    base = [b for b in blocks if b.shift == (0, 0)]
    tiles, inverse = np.unique(np.array([b.tile for b in base]).reshape(-1, 2), axis=0, return_inverse=True)
    labels = [
        np.zeros(int(b.is_core.sum()), np.int8) if b.label is None else b.label[b.is_core & (b.label >= 0)]
        for b in base
    ]
    num_classes = max((int(label.max(initial=0)) for label in labels), default=0) + 1
    counts = np.zeros((len(tiles), num_classes), np.int64)
    for tile, label in zip(inverse.reshape(-1), labels, strict=True):
        counts[tile] += np.bincount(label, minlength=num_classes)
    found = plan_split(scan, tiles, counts, rule, math.inf)
    splits = {(i, j): split for (i, j), split in zip(tiles.tolist(), found, strict=True)}
    return [
        splits[b.tile] if b.shift == (0, 0) else split_of_shifted(b.tile, b.shift, splits) for b in blocks
    ]


def overlap(one: Block, other: Block) -> bool:
    """Whether two cores share ground."""
    return all(
        one.cell[a] < other.cell[a + 2] - 1e-6 and other.cell[a] < one.cell[a + 2] - 1e-6 for a in (0, 1)
    )


@given(
    seed=st.integers(0, 200),
    num_points=st.integers(2, 800),
    shape=st.sampled_from([(20.0, 20.0, 4.0), (60.0, 9.0, 4.0), (30.0, 30.0, 1.0)]),
    corner=st.sampled_from([(0.0, 0.0, 0.0), (652_003.3, 6_600_000.0, 8.0), (-77.7, -13.1, 0.0)]),
    shifts=st.sampled_from([1, 2]),
    max_points=st.sampled_from([64, 4096]),
    fraction=st.sampled_from([0.1, 0.25, 0.5]),
    labelled=st.booleans(),
)
def test_the_strip_is_one_side_of_the_scan_and_no_training_core_touches_it(
    seed: int, num_points: int, shape: tuple[float, float, float], corner: tuple[float, float, float],
    shifts: int, max_points: int, fraction: float, labelled: bool,
) -> None:  # fmt: skip
    cloud = make_cloud(num_points, seed, corner, shape, labelled=labelled)
    config = replace(SMALL, overlap=shifts, halo_m=0.5, max_points=max_points)
    blocks = cut(cloud, config)
    found = assign("a.laz", blocks, SplitRule(val_fraction=fraction))
    assert found == assign("a.laz", blocks, SplitRule(val_fraction=fraction))
    by = {
        split: [b for b, s in zip(blocks, found, strict=True) if s == split] for split in (TRAIN, VAL, UNUSED)
    }
    assert by[TRAIN]
    base = [b for b in blocks if b.shift == (0, 0)]
    # Blocks of the base grid are never wasted; of the others those that touch the strip's edge are.
    assert all(b.shift != (0, 0) for b in by[UNUSED])
    assert all(b.shift == (0, 0) for b in by[VAL])
    assert not any(overlap(t, v) for t in by[TRAIN] for v in by[VAL])
    if len({b.tile for b in base}) == 1:
        return
    assert by[VAL]
    kept = [b for b in by[TRAIN] if b.shift == (0, 0)]
    assert any(
        max(v.cell[a + 2] for v in by[VAL]) <= min(t.cell[a] for t in kept) + 1e-6
        or min(v.cell[a] for v in by[VAL]) >= max(t.cell[a + 2] for t in kept) - 1e-6
        for a in (0, 1)
    ), "one straight edge parts them"


def test_the_strip_comes_nearest_to_the_share_of_every_class() -> None:
    # Ten tiles in a row, one class per half of each: the strip of two tiles holds a fifth of both.
    x, y = np.meshgrid(np.arange(0.25, 80, 0.5), np.arange(0.25, 8, 0.5))
    xyz = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
    codes = np.where(y.ravel() < 4, 2, 6).astype(np.uint8)
    blocks = cut(Cloud(xyz, {"classification": codes}))
    found = assign("a", blocks, SplitRule(val_fraction=0.2))
    assert [b.tile[0] for b, s in zip(blocks, found, strict=True) if s == VAL] in ([0, 1], [8, 9])
    # A rare class, a fifth of which lies in the two tiles on the left and none in those on the right.
    codes[(y.ravel() < 1) & ((x.ravel() < 8) | ((x.ravel() > 32) & (x.ravel() < 64)))] = 5
    blocks = cut(Cloud(xyz, {"classification": codes}))
    found = assign("a", blocks, SplitRule(val_fraction=0.2))
    assert [b.tile[0] for b, s in zip(blocks, found, strict=True) if s == VAL] == [0, 1]


def test_no_edge_within_a_dense_tile_cuts_the_tiles_beside_it() -> None:
    # Four by four tiles; one of them, cut into quarters, has edges where the others have none.
    sparse, dense = make_cloud(200, extent=(32.0, 32.0, 1.0)), make_cloud(3000, 1, extent=(8.0, 8.0, 4.0))
    xyz = np.concatenate([sparse.xyz, dense.xyz])
    blocks = cut(Cloud(xyz), replace(SMALL, halo_m=0.5, max_points=400))
    assert len({b.cell for b in blocks}) > len({b.tile for b in blocks}) == 16
    for fraction in (0.1, 0.5, 0.9):
        assert set(assign("a", blocks, SplitRule(val_fraction=fraction))) == {TRAIN, VAL}


@pytest.mark.parametrize("labelled", [True, False])
def test_a_single_tile_is_training(labelled: bool) -> None:
    cloud = make_cloud(50, extent=(7.9, 7.9, 2.0), labelled=labelled)
    assert assign("a", cut(cloud), SplitRule(val_fraction=0.3)) == [TRAIN]


def test_no_fraction_no_strip() -> None:
    assert set(assign("a", cut(make_cloud(200)), SplitRule(val_fraction=0.0))) == {TRAIN}


def test_a_scan_whose_labels_are_all_ignored_is_split_all_the_same() -> None:
    cloud = make_cloud(200)
    cloud.attributes["classification"][:] = 1
    assert {TRAIN, VAL} <= set(assign("a", cut(cloud), SplitRule(val_fraction=0.2)))


def test_named_scans_validate_as_a_whole() -> None:
    blocks = cut(make_cloud(200), replace(SMALL, overlap=2))
    rule = SplitRule(val_fraction=0.3, val_scans=("val/*.laz", "b.laz"))
    for scan, chosen in (("val/a.laz", True), ("b.laz", True), ("a.laz", False), ("c/b.laz", False)):
        found = assign(scan, blocks, rule)
        expected = [(VAL if b.shift == (0, 0) else UNUSED) if chosen else TRAIN for b in blocks]
        assert found == expected


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0, float("nan")])
def test_shares_that_cannot_be(fraction: float) -> None:
    with pytest.raises(PointloomError, match="val_fraction"):
        SplitRule(val_fraction=fraction)


# --- tile by tile

TILE_M = 16.0
tile_sets = st.lists(
    st.tuples(st.integers(-40, 40), st.integers(-40, 40)), min_size=1, max_size=60, unique=True
)
rules = st.one_of(
    st.builds(
        SplitRule,
        val_fraction=st.sampled_from([0.0, 0.2, 0.4]),
        test_fraction=st.sampled_from([0.0, 0.1, 0.5]),
        area_size_m=st.sampled_from([0.0, 16.0, 50.0, 160.0]),
        seed=st.integers(0, 3),
    ),
    st.builds(lambda fold, seed: of_five(fold, 4, 0.3, seed), st.integers(0, 3), st.integers(0, 3)),
)


def plan(tiles: list[tuple[int, int]], rule: SplitRule, scan: str = "a.laz") -> dict[tuple[int, int], str]:
    """The split of each tile; what a tile holds depends on its place alone."""
    counts = np.array([[100 + i * i, 50 + (3 * j) % 7, abs(i * j) % 11] for i, j in tiles])
    found = plan_split(scan, np.array(tiles), counts, rule, TILE_M)
    assert len(found) == len(tiles)
    return dict(zip(tiles, found, strict=True))


@given(tiles=tile_sets, rule=rules, seed=st.integers(0, 5))
def test_every_tile_has_one_split_whatever_their_order(
    tiles: list[tuple[int, int]], rule: SplitRule, seed: int
) -> None:
    found = plan(tiles, rule)
    assert set(found.values()) <= set(SPLITS)
    order = np.random.default_rng(seed).permutation(len(tiles))
    assert plan([tiles[n] for n in order], rule) == found
    assert not (rule.val_fraction == 0 and VAL in found.values())
    assert not (rule.test_fraction == 0 and rule.num_folds == 0 and TEST in found.values())


@given(tiles=tile_sets, rule=rules, cut=st.integers(-40, 40))
def test_areas_do_not_know_how_a_survey_is_cut_into_files(
    tiles: list[tuple[int, int]], rule: SplitRule, cut: int
) -> None:
    if not rule.area_size_m:
        return
    whole = plan(tiles, rule)
    parts = ([t for t in tiles if t[0] < cut], [t for t in tiles if t[0] >= cut])
    apart = [plan(part, rule, f"part {n}.laz") for n, part in enumerate(parts) if part]
    assert {tile: split for part in apart for tile, split in part.items()} == whole


def test_areas_are_squares_of_whole_tiles_and_near_their_shares() -> None:
    tiles = [(i, j) for i in range(-100, 100) for j in range(-100, 100)]
    found = plan(tiles, SplitRule(val_fraction=0.2, test_fraction=0.1, area_size_m=64.0))
    by_area: dict[tuple[int, int], set[str]] = {}
    for (i, j), split in found.items():
        by_area.setdefault((i // 4, j // 4), set()).add(split)
    assert all(len(splits) == 1 for splits in by_area.values())
    shares = {split: list(found.values()).count(split) / len(tiles) for split in SPLITS}
    assert shares == pytest.approx({TRAIN: 0.7, VAL: 0.2, TEST: 0.1}, abs=0.03)
    assert found != plan(tiles, SplitRule(val_fraction=0.2, test_fraction=0.1, area_size_m=64.0, seed=1))
    # Reproducible, on every machine and in every version: datasets that were made must not be dealt again.
    first = plan(
        [(8 * n, 0) for n in range(20)], SplitRule(val_fraction=0.3, test_fraction=0.3, area_size_m=64.0)
    )
    assert "".join(split[1] for split in first.values()) == "rarraeerrereareaeaea"


def test_folds_of_areas_test_every_tile_once() -> None:
    tiles = [(i, j) for i in range(30) for j in range(30)]
    found = [plan(tiles, rule) for rule in (of_five(fold) for fold in range(5))]
    assert all([f[tile] for f in found].count(TEST) == 1 for tile in tiles)
    assert all(set(f.values()) == set(SPLITS) for f in found)


def test_named_scans_test_as_a_whole_and_the_test_comes_first() -> None:
    rule = SplitRule(val_fraction=0.5, val_scans=("Area_1/*", "Area_5/*"), test_scans=("Area_5/*",))
    tiles = [(0, 0), (1, 0), (2, 0)]
    for scan, split in (("Area_5/a", TEST), ("Area_1/a", VAL), ("Area_2/a", TRAIN)):
        assert set(plan(tiles, rule, scan).values()) == {split}
    assert set(plan(tiles, replace(rule, val_scans=()), "Area_2/a").values()) == {TRAIN, VAL}


def test_strips_hold_out_a_test_and_a_validation() -> None:
    tiles = [(i, 0) for i in range(10)]
    found = plan_split(
        "a", np.array(tiles), np.full((10, 2), 7), SplitRule(val_fraction=0.2, test_fraction=0.3), TILE_M
    )
    assert [found.count(split) for split in SPLITS] == [5, 2, 3]
    edges = sum(one != other for one, other in itertools.pairwise(found))
    assert edges == 2, "contiguous strips"


def test_shifted_tiles_train_on_training_ground_alone() -> None:
    base = {(0, 0): TRAIN, (1, 0): TRAIN, (2, 0): VAL, (3, 0): TEST}
    assert split_of_shifted((0, 0), (1, 0), base) == TRAIN
    assert split_of_shifted((1, 0), (1, 0), base) == UNUSED
    assert split_of_shifted((2, 0), (0, 1), base) == UNUSED
    assert split_of_shifted((1, -1), (0, 1), base) == TRAIN
    assert split_of_shifted((3, -1), (1, 1), base) == UNUSED


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"test_fraction": 1.0}, "test_fraction"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "less than all"),
        ({"area_size_m": -1.0}, "area_size_m"),
        ({"area_size_m": float("nan")}, "area_size_m"),
        ({"num_folds": 5}, "area_size_m"),
        ({"num_folds": 5, "fold": 5, "area_size_m": 50.0}, "fold 5"),
        ({"num_folds": -2, "area_size_m": 50.0}, "fold 0 of -2"),
        ({"num_folds": 5, "test_fraction": 0.1, "area_size_m": 50.0}, "test_fraction"),
    ],
)
def test_rules_that_cannot_be(settings: dict[str, float], word: str) -> None:
    with pytest.raises(PointloomError) as error:
        SplitRule(**settings)
    assert_one_sentence(error, word)


def test_areas_smaller_than_a_tile_are_refused() -> None:
    with pytest.raises(PointloomError) as error:
        plan([(0, 0)], SplitRule(area_size_m=15.9))
    assert_one_sentence(error, "area_size_m")
