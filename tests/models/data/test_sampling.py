"""Every block is taken once per epoch, by one worker or by several, in the same order."""

from __future__ import annotations

import pytest

from models.data.sampling import DealtBatches
from pointcloud.errors import PointloomError
from tests.support.clouds import assert_one_sentence


def dealt(num_blocks: int, num_workers: int, epoch: int = 0, **changes: int) -> list[list[list[int]]]:
    """By worker, the blocks of each of its parts."""
    settings = {"batch_size": 6, "accumulation": 1, "seed": 0} | changes
    batches = [
        DealtBatches(num_blocks, **settings, rank=rank, num_workers=num_workers)
        for rank in range(num_workers)
    ]
    for one in batches:
        one.set_epoch(epoch)
    found = [list(one) for one in batches]
    assert [len(one) for one in batches] == [len(parts) for parts in found]
    return found


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("num_blocks", [3, 5, 6, 7, 11, 13, 61])
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_every_block_is_dealt_once_per_epoch(num_workers: int, num_blocks: int, accumulation: int) -> None:
    of_workers = dealt(num_blocks, num_workers, accumulation=accumulation)
    taken = [index for parts in of_workers for part in parts for index in part]
    assert sorted(taken) == list(range(num_blocks))
    assert len({len(parts) for parts in of_workers}) == 1, "all take part in every step"
    assert all(part for parts in of_workers for part in parts), "nobody goes without a block"


@pytest.mark.parametrize("num_blocks", [7, 12, 61])
def test_the_steps_are_the_same_for_any_number_of_workers(num_blocks: int) -> None:
    def steps(num_workers: int) -> list[list[int]]:
        return [
            [index for part in parts for index in part]
            for parts in zip(*dealt(num_blocks, num_workers), strict=True)
        ]

    assert steps(1) == steps(2) == steps(3)
    assert len(steps(1)) == num_blocks // 6


def test_two_workers_take_the_parts_that_one_takes_one_after_the_other() -> None:
    (one,) = dealt(25, 1, accumulation=2)
    two = dealt(25, 2)
    assert [part for pair in zip(*two, strict=True) for part in pair] == one


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = [dealt(61, 1, epoch, seed=seed) for seed in (0, 1) for epoch in (0, 1)]
    assert orders[0] == dealt(61, 1, 0, seed=0)
    assert all(one != other for n, one in enumerate(orders) for other in orders[:n])


def test_more_workers_than_blocks_are_said() -> None:
    with pytest.raises(PointloomError, match=r"2 labelled training block\(s\).* 3 Ray workers") as error:
        dealt(2, 3)
    assert_one_sentence(error, "use fewer")
