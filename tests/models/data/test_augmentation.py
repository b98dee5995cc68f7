"""Augmentation: what is up stays up, features follow the deformed block, channels go missing as often as asked."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch_geometric import seed_everything
from torch_geometric.data import Data

from models.data.augmentation import Augmentation
from models.data.dataset import to_data
from models.recipes import recipe
from pointcloud.blocks.features import FeatureStatistics
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.height import height_above, lowest_points
from pointcloud.labels import IGNORE
from tests.support.clouds import cut, make_cloud

NAMES = ("height", "intensity", "return_number", "number_of_returns")
STATISTICS = FeatureStatistics(dict.fromkeys(NAMES, 1.0), dict.fromkeys(NAMES, 2.0))
BLOCK = cut(make_cloud(400, colours=True))[0]
JITTER_M = 0.02
FARTHEST = 6 * JITTER_M  # of some thousand draws


def factors(deformed: np.ndarray) -> np.ndarray:
    """Of x, y and z, by least squares."""
    return (deformed * BLOCK.position).sum(axis=0) / (BLOCK.position**2).sum(axis=0)


def test_sizes_and_heights_are_stretched_as_far_as_asked_and_no_farther() -> None:
    seed_everything(1)
    found = np.array([factors(Augmentation(stretch=1.5).deform(BLOCK).position) for _ in range(200)])
    np.testing.assert_allclose(found[:, 0], found[:, 1], atol=0.01)  # the plane is scaled as one
    assert 1 / 1.16 < found[:, 0].min() < 0.9
    assert 1.1 < found[:, 0].max() < 1.16
    assert 1 / 1.52 < found[:, 2].min() < 0.72
    assert 1.4 < found[:, 2].max() < 1.52
    assert abs(np.corrcoef(found[:, 0], found[:, 2])[0, 1]) < 0.25, "heights are stretched on their own"
    kept = np.array([factors(Augmentation(stretch=1.0).deform(BLOCK).position)[2] for _ in range(20)])
    np.testing.assert_allclose(kept, 1, atol=0.01)


def test_height_extent_and_surroundings_follow_the_points() -> None:
    seed_everything(2)
    deformed = Augmentation(stretch=1.5).deform(BLOCK)
    by = factors(deformed.position)
    assert abs(math.log(by[2])) > 0.05, "a seed that stretches"
    assert np.abs(deformed.position - BLOCK.position * by).max() < FARTHEST
    np.testing.assert_allclose(deformed.height, BLOCK.height * by[2], rtol=0.01)
    np.testing.assert_allclose(deformed.extent, BLOCK.extent * by, rtol=0.01, atol=1e-6)
    features = ("xyz", "height", "shape_4m", "room_xyz")
    plain, moved = (to_data(block, features, STATISTICS).extra for block in (BLOCK, deformed))
    assert not torch.allclose(plain[:, 1:9], moved[:, 1:9], atol=1e-3), (
        "surroundings are the deformed block's"
    )
    torch.testing.assert_close(plain[:, 9:], moved[:, 9:], rtol=0, atol=0.05)  # the place in the room stays


def test_on_other_ground_things_stand_upright_and_heights_are_what_cutting_would_say() -> None:
    seed_everything(8)
    window, wrong = 6.0, []
    # Cut without a halo: all that heights are counted from lies in the block.
    heights = height_above(
        BLOCK.position.astype(float), window, *lowest_points(BLOCK.position.astype(float), window)
    )
    block = replace(BLOCK, height=heights.astype(np.float32))
    for _ in range(100):
        moved = Augmentation(relief=0.4, ground_window_m=window).deform(block)
        by = factors(moved.position)[0]
        assert np.abs(moved.position[:, :2] - block.position[:, :2] * by).max() < FARTHEST
        position = moved.position.astype(float)
        expected = height_above(position, window, *lowest_points(position, window))
        # Not the same: scaling, which comes first, moves points across the cells that heights are counted in.
        wrong.append([np.abs(height - expected).mean() for height in (moved.height, block.height)])
    ours, as_if_flat = np.mean(wrong, axis=0)
    assert ours < 0.6 * as_if_flat


def test_a_crop_is_what_lies_around_one_labelled_point() -> None:
    seed_everything(4)
    few = BLOCK.label.copy()
    few[np.flatnonzero(BLOCK.is_core)[5:]] = IGNORE
    block = replace(BLOCK, label=few, point_index=np.arange(len(BLOCK)))
    shares = []
    for _ in range(100):
        cropped = Augmentation(crop=0.8).deform(block)
        rows = cropped.point_index
        assert (np.diff(rows) > 0).all(), "in their old order, the core before the halo"
        assert (cropped.label[cropped.is_core] != IGNORE).any()
        shares.append(len(cropped) / len(block))
        left_out = np.setdiff1d(np.arange(len(block)), rows)
        middles = block.position[rows[cropped.label != IGNORE], :2]
        to_kept, to_left = (
            np.linalg.norm(block.position[each, :2] - middles[:, None], axis=2) for each in (rows, left_out)
        )
        around = to_kept.max(axis=1) <= to_left.min(axis=1, initial=np.inf) + 1e-4
        assert around.any(), "no point that was left out is nearer to the middle than one that was kept"
    assert 0.2 < min(shares) < 0.3
    assert 0.9 < max(shares) <= 1.0
    assert len(Augmentation().deform(BLOCK)) == len(BLOCK)


def test_turning_keeps_what_is_up_up_and_every_distance() -> None:
    seed_everything(3)
    still = to_data(BLOCK, ("xyz", "height"), STATISTICS)
    before = still.pos.clone()
    turns = [Augmentation(features=("xyz", "height")).turn(still).pos for _ in range(20)]
    for moved in turns:
        torch.testing.assert_close(moved[:, 2], before[:, 2])
        torch.testing.assert_close(torch.cdist(moved, moved), torch.cdist(before, before), atol=2e-2, rtol=0)
    mirrored = [torch.linalg.det(torch.linalg.lstsq(before, moved).solution).item() < 0 for moved in turns]
    assert 4 <= sum(mirrored) <= 16
    assert torch.equal(still.pos, before)


def test_channels_go_missing_one_by_one_and_colours_together() -> None:
    seed_everything(4)
    features = ("xyz", "intensity", "rgb", "returns")
    data = Data(pos=torch.ones(5, 3), extra=torch.ones(5, 6))
    kept = torch.stack(
        [
            Augmentation(features=features, colour_drop=0.5, channel_drop=0.2).turn(data).extra
            for _ in range(400)
        ]
    )
    assert torch.equal(kept, kept[:, :1].expand_as(kept)), "a channel is missing in the whole block"
    kept = kept[:, 0]
    assert torch.equal(kept[:, 1], kept[:, 2])
    assert torch.equal(kept[:, 1], kept[:, 3])
    missing = 1 - kept.mean(dim=0)
    torch.testing.assert_close(missing, torch.tensor([0.2, 0.5, 0.5, 0.5, 0.2, 0.2]), atol=0.08, rtol=0)
    assert (kept[:, 4] != kept[:, 5]).any()
    assert torch.equal(data.extra, torch.ones(5, 6))
    whole = Augmentation(features=features).turn(data).extra
    assert torch.equal(whole, torch.ones(5, 6))


def test_a_recipe_without_augmentation_has_none() -> None:
    blocks = BlockConfig(ground_window_m=12.0)
    assert Augmentation.of(recipe("paper"), ("xyz",), blocks) is None
    changes = {"stretch": 1.2, "crop": 0.4, "relief": 0.1, "channel_drop": 0.3}
    changes |= {"rugged": 0.2, "thinning": 8.0, "return_drop": 0.1}
    changed = Augmentation.of(recipe("modern", **changes), ("xyz", "height"), blocks)
    assert changed == Augmentation(
        features=("xyz", "height"), ground_window_m=12.0, colour_drop=recipe("modern").colour_drop, **changes
    )


def test_a_block_without_extent_is_deformed_all_the_same() -> None:
    assert Augmentation().deform(replace(BLOCK, extent=None)).extent is None


@pytest.mark.parametrize("seed", [5, 6])
def test_the_same_seed_draws_the_same(seed: int) -> None:
    drawn = []
    for _ in range(2):
        seed_everything(seed)
        augmentation = Augmentation(features=("xyz", "height"), stretch=1.5, channel_drop=0.5)
        drawn.append(augmentation.turn(to_data(augmentation.deform(BLOCK), ("xyz", "height"), STATISTICS)))
    assert torch.equal(drawn[0].pos, drawn[1].pos)
    assert torch.equal(drawn[0].extra, drawn[1].extra)


def test_half_of_the_blocks_are_thinned_and_keep_a_labelled_point() -> None:
    seed_everything(9)
    sizes = [len(Augmentation(thinning=16.0).deform(BLOCK)) for _ in range(400)]

    shares = np.array(sizes) / len(BLOCK)
    assert 0.4 < (shares == 1).mean() < 0.6
    assert shares.min() < 1.5 / 16
    few = replace(BLOCK, label=np.where(np.arange(len(BLOCK)) == 0, BLOCK.label, IGNORE).astype(np.int8))
    assert few.is_core[0]
    for _ in range(50):
        left = Augmentation(thinning=1000.0).deform(few)
        assert left.label is not None
        assert (left.label[left.is_core] != IGNORE).any()


def test_fewer_returns_are_the_first_and_the_last_numbered_anew() -> None:
    number = np.array([1, 1, 2, 1, 2, 3, 2, 4], np.uint8)
    count = np.array([1, 2, 2, 3, 3, 3, 4, 4], np.uint8)
    block = BLOCK[np.arange(8)]
    block = replace(
        block, attributes=block.attributes | {"return_number": number, "number_of_returns": count}
    )
    seed_everything(10)

    found = set()
    for _ in range(60):
        left = Augmentation(return_drop=0.99).deform(block)
        pairs = zip(
            left.attributes["return_number"].tolist(),
            left.attributes["number_of_returns"].tolist(),
            strict=True,
        )
        found.add(tuple(pairs))

    as_it_was = tuple(zip(number.tolist(), count.tolist(), strict=True))
    first_and_last = ((1, 1), (1, 2), (2, 2), (1, 2), (2, 2), (2, 2))
    assert found - {as_it_was} == {first_and_last, ((1, 1),) * 3}


def test_rugged_ground_moves_heights_only() -> None:
    seed_everything(11)
    moved = [Augmentation(rugged=0.99).deform(BLOCK) for _ in range(30)]

    for block in moved:
        by = factors(block.position)[0]
        assert np.abs(block.position[:, :2] - BLOCK.position[:, :2] * by).max() < FARTHEST
        assert (block.height >= 0).all()
    assert np.median([np.abs(block.position[:, 2] - BLOCK.position[:, 2]).max() for block in moved]) > 1
