"""Train and validation lie apart on the ground, and what each holds does not depend on chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointcloud.blocks import Block
from pointcloud.cloud import Cloud
from pointcloud.errors import PointloomError
from pointcloud.splits import TRAIN, UNUSED, VAL, SplitRule, assign
from tests.clouds import SMALL, cut, make_cloud


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
    found = assign("a.laz", blocks, SplitRule(fraction))
    assert found == assign("a.laz", blocks, SplitRule(fraction))
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
    found = assign("a", blocks, SplitRule(0.2))
    assert [b.tile[0] for b, s in zip(blocks, found, strict=True) if s == VAL] in ([0, 1], [8, 9])
    # A rare class, a fifth of which lies in the two tiles on the left and none in those on the right.
    codes[(y.ravel() < 1) & ((x.ravel() < 8) | ((x.ravel() > 32) & (x.ravel() < 64)))] = 5
    blocks = cut(Cloud(xyz, {"classification": codes}))
    found = assign("a", blocks, SplitRule(0.2))
    assert [b.tile[0] for b, s in zip(blocks, found, strict=True) if s == VAL] == [0, 1]


def test_no_edge_within_a_dense_tile_cuts_the_tiles_beside_it() -> None:
    # Four by four tiles; one of them, cut into quarters, has edges where the others have none.
    sparse, dense = make_cloud(200, extent=(32.0, 32.0, 1.0)), make_cloud(3000, 1, extent=(8.0, 8.0, 4.0))
    xyz = np.concatenate([sparse.xyz, dense.xyz])
    blocks = cut(Cloud(xyz), replace(SMALL, halo_m=0.5, max_points=400))
    assert len({b.cell for b in blocks}) > len({b.tile for b in blocks}) == 16
    for fraction in (0.1, 0.5, 0.9):
        assert set(assign("a", blocks, SplitRule(fraction))) == {TRAIN, VAL}


@pytest.mark.parametrize("labelled", [True, False])
def test_a_single_tile_is_training(labelled: bool) -> None:
    cloud = make_cloud(50, extent=(7.9, 7.9, 2.0), labelled=labelled)
    assert assign("a", cut(cloud), SplitRule(0.3)) == [TRAIN]


def test_no_fraction_no_strip() -> None:
    assert set(assign("a", cut(make_cloud(200)), SplitRule(0.0))) == {TRAIN}


def test_a_scan_whose_labels_are_all_ignored_is_split_all_the_same() -> None:
    cloud = make_cloud(200)
    cloud.attributes["classification"][:] = 1
    assert {TRAIN, VAL} <= set(assign("a", cut(cloud), SplitRule(0.2)))


def test_named_scans_validate_as_a_whole() -> None:
    blocks = cut(make_cloud(200), replace(SMALL, overlap=2))
    rule = SplitRule(0.3, ("val/*.laz", "b.laz"))
    for scan, chosen in (("val/a.laz", True), ("b.laz", True), ("a.laz", False), ("c/b.laz", False)):
        found = assign(scan, blocks, rule)
        expected = [(VAL if b.shift == (0, 0) else UNUSED) if chosen else TRAIN for b in blocks]
        assert found == expected


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0, float("nan")])
def test_shares_that_cannot_be(fraction: float) -> None:
    with pytest.raises(PointloomError, match="val_fraction"):
        SplitRule(fraction)
