"""What is trained, and how: all that Ray workers need to know."""

from __future__ import annotations

from dataclasses import dataclass

from models.network.configurations import DeepGCNConfig
from models.recipes import TrainConfig
from pointcloud.dataset import store
from pointcloud.dataset.resplit import SplitBlocks, open_blocks
from pointcloud.storage import files, ledger


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """One training: which blocks, which network, how, and on how many Ray workers.

    Attributes:
        dataset: folder or URI of the blocks.
        out: folder or URI of the checkpoint.
        network: the network that is trained.
        features: its input channels, by name.
        training: how it is trained.
        num_workers: number of Ray workers.
        cpus_per_worker: CPUs of each Ray worker.
        wait_s: how long a Ray cluster may take until it has room for them, or for `min_workers` of them.
        fresh: train anew, also where a finished training with these settings is found.
        split_file: URI of another split of the blocks than their own (`pointcloud.dataset.resplit`).
        min_workers: with how many Ray workers the training may go on when nodes are lost; 0: with all.
        gpu: each Ray worker has a GPU.
    """

    dataset: str
    out: str
    network: DeepGCNConfig
    features: tuple[str, ...]
    training: TrainConfig
    num_workers: int
    cpus_per_worker: int
    wait_s: float
    fresh: bool
    split_file: str = ""
    min_workers: int = 0
    gpu: bool = False

    @property
    def workers_needed(self) -> int:
        """How many Ray workers the training cannot do without."""
        return self.min_workers or self.num_workers

    def key(self) -> str:
        """Hash of everything the weights depend on."""
        return ledger.key_of(
            files.content_hash(files.join(self.dataset, store.MANIFEST)), self.network.to_dict(),
            self.features, self.training.to_dict(), self.num_workers,
            *([files.content_hash(self.split_file)] if self.split_file else []),
        )  # fmt: skip

    def blocks(self) -> SplitBlocks:
        """The dataset under this training's split. Raises as `open_blocks`."""
        return open_blocks(self.dataset, self.split_file)
