"""From scans to a trained network in one process, with neither Ray nor Prefect: what the benchmarks train with.

It is the preprocess flow's cutting and the train flow's loop and step, on blocks in a temporary folder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from models.data.augmentation import Augmentation
from models.data.dataset import BlockDataset, batches, num_loaders
from models.familiarity import learn_familiarity, some
from models.network.configurations import DeepGCNConfig
from models.network.deepgcn import DeepGCN
from models.recipes import TrainConfig
from models.training import loop
from models.training.losses import class_weights, sets_of
from models.weights.checkpoint import Checkpoint
from pointcloud.blocks.block import Block
from pointcloud.blocks.neighbours import find_neighbours
from pointcloud.dataset import splits
from pointcloud.dataset.manifest import details_of, manifest_of
from pointcloud.dataset.preprocessing import PreprocessConfig, cut_scan, read_scan
from pointcloud.dataset.store import Manifest, read_blocks
from pointcloud.errors import PointloomError
from pointcloud.formats.reader import read_header
from pointcloud.quality.drift import seen_in
from pointcloud.storage import ledger
from pointcloud.storage.inputs import Source

_TIMED_STEPS = 10


@dataclass(frozen=True)
class Budget:
    """How long a training may be, whichever ends it first, in whole epochs.

    Attributes:
        steps: of the optimizer.
        minutes: by an estimate, which on a busy machine is a poor one; None: however long the steps take.
    """

    steps: int
    minutes: float | None = None


def train_on_scans(
    sources: Sequence[Source], config: PreprocessConfig, network: DeepGCNConfig, plan: TrainConfig,
    budget: Budget | None = None,
) -> Checkpoint:  # fmt: skip
    """A network trained on scans, on a GPU where there is one, as it was after its best epoch.

    That is the one with the best mIoU on their validation split; where the config holds nothing out, the last.

    Args:
        sources: scans with classes.
        config: how they are cut, labelled and split; its `required` are the network's features.
        network: whose inputs are those features and whose classes the config's.
        plan: how it is trained.
        budget: as many epochs as it allows, in place of the plan's.

    Raises:
        PointloomError: scans that cannot be read, nothing to train or to validate on, a loss that became NaN.
    """
    with tempfile.TemporaryDirectory(prefix="pointloom-benchmark-") as folder:
        return train_on_blocks(folder, cut(sources, config, Path(folder)), config, network, plan, budget)


def train_on_blocks(
    folder: str, manifest: Manifest, config: PreprocessConfig, network: DeepGCNConfig, plan: TrainConfig,
    budget: Budget | None = None, choose: Callable[[Iterable[Block]], Iterable[Block]] = lambda blocks: blocks,
) -> Checkpoint:  # fmt: skip
    """As `train_on_scans`, on blocks that were cut before.

    Args:
        folder: of the blocks and of the ledger of their scans.
        manifest: of the blocks in it that are used.
        config: how they were cut.
        choose: the blocks of the training split -> those that train.
    """
    scheme, tile_size_m = config.scheme, config.block_config.tile_size_m
    counts = manifest.class_counts
    weights = class_weights(counts.get(splits.TRAIN, [0])) if plan.class_weights else None
    if config.rule.val_fraction and not sum(counts.get(splits.VAL, [0])):
        raise PointloomError("no labelled validation block; hold out a larger share or use smaller tiles.")
    for split in counts:
        by_class = dict(zip(scheme.names, counts[split], strict=True))
        print(f"{split}: {manifest.num_blocks(split)} blocks, points kept {by_class}", flush=True)

    def items(blocks: Iterable[Block], augmentation: Augmentation | None = None) -> BlockDataset:
        return BlockDataset(blocks, config.required, manifest.statistics, augmentation, plan.seed)

    chosen = list(choose(read_blocks(folder, manifest, splits.TRAIN)))
    train = items(chosen, Augmentation.of(plan, config.required, config.block_config))
    val = items(read_blocks(folder, manifest, splits.VAL))
    seen = seen_in(chosen, tile_size_m, folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    loaders = num_loaders(os.cpu_count() or 1 if gpu else torch.get_num_threads(), gpu)
    train_batches = batches(train, loaders, batch_size=plan.batch_size, shuffle=True)
    val_batches = batches(val, 0, batch_size=plan.batch_size)
    if budget is not None:
        epochs = budget.steps // len(train_batches)
        if budget.minutes is not None:
            step = step_seconds(network, device, train_batches, plan, tile_size_m, scheme.names)
            epochs = min(epochs, int(60 * budget.minutes / (len(train_batches) * step)))
        plan = plan.with_epochs(max(1, epochs))
        print(f"{plan.epochs} epochs of {len(train_batches)} steps", flush=True)
    torch.manual_seed(plan.seed)
    state = loop.begin(DeepGCN(network).to(device), plan, len(train_batches))
    loop.fit(
        state, train_batches, val_batches, plan, tile_size_m, scheme.names, weights, show, sets_of(scheme)
    )  # fmt: skip
    best = max(state.history, key=lambda epoch: (epoch["val_miou"] or 0.0, epoch["epoch"]))
    checkpoint = Checkpoint(
        network=network,
        state={name: tensor.cpu() for name, tensor in state.best.items()},
        block_config=config.block_config,
        label_scheme=scheme,
        features=config.required,
        statistics=manifest.statistics,
        metrics={
            "val_miou": best["val_miou"] if len(val) else None,
            "epoch": best["epoch"],
            "epochs": plan.epochs,
        },
        history=state.history,
        seen=seen,
    )
    return learn_familiarity(checkpoint, some(chosen, len(chosen)))


def cut(sources: Sequence[Source], config: PreprocessConfig, folder: Path) -> Manifest:
    """The blocks of scans as shards in a folder, cut across their borders; the manifest is returned, not written.

    A ledger beside them says how many points each scan has.

    Raises:
        ScanError: a scan that cannot be read or cut.
    """
    with tempfile.TemporaryDirectory(prefix="pointloom-decoded-") as decoded:
        return manifest_of(cut_records(sources, config, folder, Path(decoded)), config)


def cut_records(
    sources: Sequence[Source], config: PreprocessConfig, folder: Path, decoded: Path, key: str = ""
) -> dict[str, ledger.Record]:
    """As `cut`; the records of the scans, by name, which are in the ledger of the folder too.

    Args:
        decoded: a folder for what is needed meanwhile.
        key: of the records, and the folder below `folder` that holds the shards.
    """
    neighbours = find_neighbours({s.name: read_header(s.uri) for s in sources}, config.block_config)
    decoded_scans = {source.name: read_scan(source, config, decoded) for source in sources}
    records: dict[str, ledger.Record] = {}
    (folder / key).mkdir(parents=True, exist_ok=True)
    for number, (scan, its_points) in enumerate(sorted(decoded_scans.items())):
        path = f"{key}/{number}.parquet" if key else f"{number}.parquet"
        beside = [decoded_scans[name] for name in neighbours[scan]]
        sums = cut_scan(its_points, beside, config, str(folder / path))
        records[scan] = ledger.Record(
            stage="preprocess",
            scan=scan,
            key=key,
            state=ledger.DONE,
            points_in=its_points.num_points,
            points_out=sums.num_core,
            path=path,
            details=details_of(its_points, beside, sums, config),
        )
        ledger.write(str(folder), records[scan])
    return records


def step_seconds(
    network: DeepGCNConfig, device: torch.device, batches: DataLoader[Any], plan: TrainConfig,
    tile_size_m: float, names: tuple[str, ...], steps: int = _TIMED_STEPS,
) -> float:  # fmt: skip
    """Seconds of a training step, its blocks included, from some steps of a network that is thrown away."""
    plan = replace(plan, epochs=2)  # the first loads the kernels
    state = loop.begin(DeepGCN(network).to(device), plan, steps)
    for epochs in (1, 2):
        few = islice(batches, steps)
        loop.fit(state, few, [], replace(plan, epochs=epochs), tile_size_m, names, None, lambda _: None)
    return state.history[-1]["seconds"] / min(steps, len(batches))


def show(state: loop.TrainState) -> None:
    epoch = state.history[-1]
    held_out = "nothing held out"
    if epoch["val_miou"] is not None:
        held_out = f"validation loss {epoch['val_loss']:.3f}, mIoU {epoch['val_miou']:.4f}"
    print(
        f"epoch {epoch['epoch']}: loss {epoch['train_loss']:.3f}, {held_out}, {epoch['seconds']:.1f} s",
        flush=True,
    )
