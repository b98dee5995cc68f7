"""What the network is given: halo without labels, augmentation that leaves the stored block alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch_geometric import seed_everything

from models.augmentation import Augmentation
from models.dataset import BlockDataset, collate, network_input, to_data
from pointcloud.errors import ScanError
from pointcloud.features import FeatureStatistics, num_channels, point_features
from pointcloud.labels import IGNORE
from tests.clouds import cut, make_cloud

FEATURES = ("xyz", "height", "intensity", "returns", "rgb", "room_xyz")
STATISTICS = FeatureStatistics(
    dict.fromkeys(("height", "intensity", "return_number", "number_of_returns"), 1.0),
    dict.fromkeys(("height", "intensity", "return_number", "number_of_returns"), 2.0),
)
BLOCKS = cut(make_cloud(400, colours=True))


def test_core_points_carry_their_labels_and_halo_points_none() -> None:
    halos = 0
    for block in BLOCKS:
        item = to_data(block, FEATURES, STATISTICS)
        expected = np.where(block.is_core, block.label, IGNORE)
        np.testing.assert_array_equal(item.y.numpy(), expected)
        assert item.y.dtype == torch.int64
        halos += int((~block.is_core).sum())
        assert (block.label[~block.is_core] != IGNORE).any(), "the halo has labels that must not be seen"
        np.testing.assert_array_equal(item.pos.numpy(), block.position)
        np.testing.assert_array_equal(item.extra.numpy(), point_features(block, FEATURES, STATISTICS))
    assert halos


def test_an_unlabelled_block_is_ignored_whole() -> None:
    item = to_data(replace(BLOCKS[0], label=None), ("xyz",), STATISTICS)
    assert (item.y == IGNORE).all()
    assert item.extra.shape == (len(BLOCKS[0]), 0)


def test_a_missing_attribute_is_said() -> None:
    with pytest.raises(ScanError, match="'rgb'"):
        to_data(replace(BLOCKS[0], attributes={}), ("xyz", "rgb"), STATISTICS)


def test_features_that_are_no_numbers_are_said_before_training() -> None:
    position = BLOCKS[0].position.copy()
    position[3, 1] = np.nan
    with pytest.raises(ScanError, match="NaN or infinite") as error:
        BlockDataset([replace(BLOCKS[0], position=position)], ("xyz",), STATISTICS)
    assert repr(BLOCKS[0].scan) in str(error.value)


def test_blocks_without_one_core_label_are_left_out() -> None:
    # Its halo has labels, its core has none: a loss over it would be 0 / 0.
    core = BLOCKS[1].is_core
    only_halo = replace(BLOCKS[1], label=np.where(core, IGNORE, BLOCKS[1].label).astype(np.int8))
    blocks = [BLOCKS[0], only_halo, replace(BLOCKS[2], label=None), BLOCKS[3]]
    dataset = BlockDataset(blocks, FEATURES, STATISTICS)
    assert [len(dataset[index].pos) for index in range(len(dataset))] == [len(BLOCKS[0]), len(BLOCKS[3])]


def test_augmentation_is_new_each_time_and_leaves_the_stored_block_alone() -> None:
    seed_everything(0)
    before = [(block.position.copy(), block.height.copy()) for block in BLOCKS]
    dataset = BlockDataset(BLOCKS, FEATURES, STATISTICS, Augmentation(FEATURES, stretch=1.5))
    plain = BlockDataset(BLOCKS, FEATURES, STATISTICS)
    assert len(dataset) == len(plain) == len(BLOCKS)
    for index in range(len(dataset)):
        one, other, still = dataset[index], dataset[index], plain[index]
        assert one.pos.shape == still.pos.shape
        assert one.pos.dtype == one.extra.dtype == torch.float32
        assert not torch.equal(one.pos, other.pos)
        assert not torch.equal(one.pos, still.pos)
        assert torch.equal(one.y, still.y)
        assert torch.equal(plain[index].pos, still.pos)
    for block, (position, height) in zip(BLOCKS, before, strict=True):
        np.testing.assert_array_equal(block.position, position)
        np.testing.assert_array_equal(block.height, height)


def test_batches_lie_one_after_the_other_and_nothing_is_padded() -> None:
    items = [to_data(block, FEATURES, STATISTICS) for block in BLOCKS[:3]]
    batch = collate(items)
    sizes = [len(block) for block in BLOCKS[:3]]
    assert len(set(sizes)) > 1
    assert batch.ptr.tolist() == [0, *np.cumsum(sizes).tolist()]
    x = network_input(batch, tile_size_m=8.0)
    assert x.shape == (sum(sizes), num_channels(FEATURES))
    assert x.dtype == torch.float32
    for i, item in enumerate(items):
        rows = x[batch.ptr[i] : batch.ptr[i + 1]]
        torch.testing.assert_close(rows[:, :3], item.pos / 4)
        torch.testing.assert_close(rows[:, 3:], item.extra)
    core = torch.from_numpy(BLOCKS[0].is_core)
    assert x[: sizes[0]][core, :2].abs().max() <= 1 + 1e-5, "a tile reaches from -1 to 1"


def test_a_batch_is_the_same_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    augmentation = Augmentation(("xyz", "shape_2m"), stretch=1.5, crop=0.5, channel_drop=0.2)
    dataset = BlockDataset(BLOCKS, ("xyz", "shape_2m"), STATISTICS, augmentation)
    batches = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        seed_everything(3)
        batches.append(collate(dataset.__getitems__(range(len(dataset)))))
    one, three = batches
    assert torch.equal(one.pos, three.pos)
    assert torch.equal(one.extra, three.extra)
    assert one.name == three.name
