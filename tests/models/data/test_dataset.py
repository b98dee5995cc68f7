"""What the network is given: halo without labels, augmentation that leaves the stored block alone."""

from __future__ import annotations

import random
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch_geometric import seed_everything
from torch_geometric.data import Batch

from models.data.augmentation import Augmentation
from models.data.dataset import BlockDataset, batches, collate, num_loaders, to_data
from models.data.stacked import network_input
from pointcloud.blocks.block import Block
from pointcloud.blocks.features import FeatureStatistics, num_channels, point_features
from pointcloud.errors import ScanError
from pointcloud.labels import IGNORE
from tests.support.clouds import assert_one_sentence, cut, make_cloud

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


def test_augmentation_is_new_each_epoch_and_leaves_the_stored_block_alone() -> None:
    before = [(block.position.copy(), block.height.copy()) for block in BLOCKS]
    dataset = BlockDataset(BLOCKS, FEATURES, STATISTICS, Augmentation(features=FEATURES, stretch=1.5))
    plain = BlockDataset(BLOCKS, FEATURES, STATISTICS)
    assert len(dataset) == len(plain) == len(BLOCKS)
    for index in range(len(dataset)):
        dataset.set_epoch(0)
        one, still = dataset[index], plain[index]
        dataset.set_epoch(1)
        other = dataset[index]
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


def assert_alike(one: Batch, other: Batch) -> None:
    assert torch.equal(one.pos, other.pos)
    assert torch.equal(one.extra, other.extra)
    assert one.name == other.name


def deformed(seed: int = 0) -> BlockDataset:
    augmentation = Augmentation(
        features=("xyz", "shape_2m"), stretch=1.5, crop=0.5, relief=0.4, channel_drop=0.2
    )
    return BlockDataset(BLOCKS, ("xyz", "shape_2m"), STATISTICS, augmentation, seed)


def test_what_is_drawn_follows_from_seed_epoch_and_block_and_disturbs_nothing_around() -> None:
    one, same, other = deformed(), deformed(), deformed(seed=1)
    assert_alike(collate([one[1], one[0]]), collate([same[1], same[0]]))
    assert_alike(collate([one[0], one[1]]), collate(one.__getitems__([0, 1])))
    assert not torch.equal(one[0].pos, other[0].pos)
    seed_everything(4)
    expected = torch.rand(3), random.random()
    seed_everything(4)
    one[0]
    assert torch.equal(torch.rand(3), expected[0])
    assert random.random() == expected[1]


def test_batches_are_the_same_from_any_number_of_processes() -> None:
    dataset = deformed()
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        here, *elsewhere = (list(batches(dataset, loaders, batch_size=2)) for loaders in (0, 1, 2))
        assert len(here) == -(-len(BLOCKS) // 2)
        for found in elsewhere:
            assert len(found) == len(here)
            for one, other in zip(here, found, strict=True):
                assert_alike(one, other)


@pytest.mark.parametrize("loaders", [0, 1])
def test_a_block_that_is_deformed_beyond_numbers_is_one_sentence_from_any_process(
    loaders: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tear(self: Augmentation, block: Block) -> Block:
        return replace(block, position=block.position * np.array([1, 1, np.nan], np.float32))

    dataset = deformed()
    monkeypatch.setattr(Augmentation, "deform", tear)
    with pytest.raises(ScanError) as error:
        list(batches(dataset, loaders, batch_size=2))
    assert str(error.value).startswith(f"scan {BLOCKS[0].scan!r} tile ")
    assert_one_sentence(error, "has NaN or infinite features")


def test_blocks_are_made_beside_the_training_where_there_are_cpus_for_it() -> None:
    on_linux = sys.platform == "linux"
    assert [num_loaders(cpus, gpu=False) for cpus in (1, 2, 4, 16)] == [0, on_linux, on_linux, 4 * on_linux]
    assert [num_loaders(cpus, gpu=True) for cpus in (1, 16, 64)] == [0, 15 * on_linux, 16 * on_linux]
    assert batches(deformed(), 2).num_workers == 2
    assert batches(BlockDataset(BLOCKS, FEATURES, STATISTICS), 2).num_workers == 0, "there is nothing to make"


def test_a_batch_is_the_same_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = deformed()
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(collate(dataset.__getitems__(range(len(dataset)))))
    assert_alike(*found)
