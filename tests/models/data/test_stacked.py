from __future__ import annotations

import torch

from models.data.dataset import collate, to_data
from models.data.stacked import network_input, stack
from tests.models.data.test_dataset import BLOCKS, FEATURES, STATISTICS


def test_blocks_are_stacked_as_a_training_batches_them() -> None:
    stacked = stack(BLOCKS[:3], FEATURES, STATISTICS)
    batch = collate([to_data(block, FEATURES, STATISTICS) for block in BLOCKS[:3]])
    assert torch.equal(stacked.ptr, batch.ptr)
    assert torch.equal(network_input(stacked, 8.0), network_input(batch, 8.0))
