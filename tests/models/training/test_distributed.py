"""Two workers (gloo, two processes) train as one does that takes the same blocks in two parts."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch_geometric.data import Batch

from models.data.dataset import BlockDataset, collate
from models.network.deepgcn import DeepGCN
from models.recipes import TrainConfig
from models.training import distributed
from models.training.errors import Diverged
from models.training.loop import begin, train_step, unwrapped
from models.training.losses import class_weights
from tests.models.training.test_loop import FEATURES, NETWORK, STATISTICS, TILE, two_class_blocks

pytestmark = pytest.mark.slow  # two more processes that import torch
STEPS = 6
PATIENCE_S = 120
CONFIG = TrainConfig(batch_size=4, schedule="halving", augment=False, ema_decay=0.5)


def batches() -> list[list[Batch]]:
    """STEPS times two batches of blocks with different numbers of labelled points."""
    items = list(BlockDataset(two_class_blocks(4), FEATURES, STATISTICS))
    assert len({int((item.y >= 0).sum()) for item in items}) > 1
    pairs = [collate([items[0], items[3]]), collate([items[1]]), collate([items[2]])]
    return [[pairs[n % 3], pairs[(n + 1) % 3]] for n in range(STEPS)]


def train(network: nn.Module, parts_of: list[list[Batch]]) -> dict[str, Any]:
    state = begin(network, CONFIG, STEPS)
    weights = class_weights([300, 150])
    losses = [train_step(state, parts, CONFIG, TILE, weights) for parts in parts_of]
    distributed.average_buffers(unwrapped(network))
    assert state.average is not None
    return {
        "losses": losses,
        "parameters": {n: p.detach().clone() for n, p in unwrapped(network).named_parameters()},
        "average": {n: p.detach() for n, p in state.average.module.named_parameters()},
        "buffers": {n: b.clone() for n, b in unwrapped(network).named_buffers()},
    }


def fresh_network() -> DeepGCN:
    torch.manual_seed(0)
    return DeepGCN(NETWORK_WITHOUT_CHANCE)


NETWORK_WITHOUT_CHANCE = type(NETWORK)(**{**NETWORK.to_dict(), "dropout": 0.0, "stochastic_epsilon": 0.0})


def worker(rank: int, folder: str) -> None:
    """One of two processes, whose network is gone before the process group is.

    A group that dies with the network of DistributedDataParallel dies under the GIL, waiting for a thread of
    gloo's that waits for the GIL to free its last tensor (seen in one of eight runs, torch 2.13).
    """
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    torch.save(train_as_one_of_two(rank), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def train_as_one_of_two(rank: int) -> dict[str, Any]:
    """This worker's part of every step, then a step that one worker's block spoils."""
    network = nn.parallel.DistributedDataParallel(fresh_network(), forward_sync_buffers=False)
    result = train(network, [[parts[rank]] for parts in batches()])
    batch = batches()[0][rank]
    if rank == 1:
        batch.extra = torch.full_like(batch.extra, 1e38)
    try:  # not pytest.raises, whose traceback would keep the network
        train_step(begin(network, CONFIG, 1), [batch], CONFIG, TILE, None)
    except Diverged as error:
        result["diverged"] = str(error)
    return result


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("pair")
    workers = mp.spawn(worker, args=(str(folder),), nprocs=2, join=False)
    assert workers is not None
    try:
        assert workers.join(timeout=PATIENCE_S) or workers.join(timeout=PATIENCE_S), "a worker did not end"
    finally:
        for process in workers.processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("what", ["parameters", "average"])
def test_two_workers_end_in_the_weights_of_one(pair: list[dict[str, Any]], what: str) -> None:
    one = train(fresh_network(), batches())
    assert pair[0]["losses"] == pair[1]["losses"]
    assert pair[0]["losses"] == pytest.approx(one["losses"], rel=1e-5)
    start = dict(fresh_network().named_parameters())
    for name, parameter in one[what].items():
        assert torch.equal(pair[0][what][name], pair[1][what][name]), name
        torch.testing.assert_close(pair[0][what][name], parameter, rtol=1e-4, atol=1e-5)
    assert max((one[what][n] - p.detach()).abs().max().item() for n, p in start.items()) > 1e-3


def test_running_statistics_are_the_mean_of_both_workers(pair: list[dict[str, Any]]) -> None:
    first, second = pair[0]["buffers"], pair[1]["buffers"]
    for name, buffer in first.items():
        assert torch.equal(buffer, second[name]), name


def test_both_workers_stop_and_name_the_block_that_one_of_them_had(pair: list[dict[str, Any]]) -> None:
    name = batches()[0][1].name
    assert pair[0]["diverged"] == pair[1]["diverged"]
    assert all(each in pair[0]["diverged"] for each in name)
    assert not any(each in pair[0]["diverged"] for each in batches()[0][0].name)


def test_one_process_alone_has_nobody_to_ask() -> None:
    assert "RANK" not in os.environ
    assert distributed.num_workers() == 1
    assert distributed.gather_names(("a",)) == ("a",)
    assert distributed.sum_over_workers(torch.tensor(2.0)).item() == 2.0
