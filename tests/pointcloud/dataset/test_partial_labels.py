"""Scans of two producers in one dataset: each block keeps what its scan's codes allow."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np
import torch

from benchmarks.scan_training import cut, train_on_scans
from models.data.dataset import to_data
from models.network.configurations import DeepGCNConfig
from models.recipes import TrainConfig
from pointcloud.dataset.preprocessing import PreprocessConfig
from pointcloud.dataset.splits import SplitRule
from pointcloud.dataset.store import read_blocks
from pointcloud.labels import FIRST_SET, IGNORE, PRESETS, LabelScheme, PartialLabel, Producer
from pointcloud.storage.inputs import Source
from tests.support.clouds import SMALL, write_las

SCHEME = LabelScheme(
    "two producers",
    PRESETS["ground-vegetation-building"].classes,
    (PartialLabel((1,), ("vegetation", "building")),),
    (Producer("other", ("other*",), ((2, ("ground",)), (6, ("vegetation", "building")))),),
)
CUTTING = PreprocessConfig(block_config=SMALL, scheme=SCHEME, rule=SplitRule(val_fraction=0.0))


def scans(folder: Path) -> list[Source]:
    names = ("mine.las", "other.las")
    for seed, name in enumerate(names):
        header = laspy.LasHeader(version="1.4", point_format=6)
        header.scales, header.offsets = np.full(3, 0.001), np.array([1000.0 * seed, 0.0, 0.0])
        write_las(folder / name, num_points=4000, seed=seed, header=header)
    return [Source(str(folder / name), name) for name in names]


def test_blocks_keep_what_the_codes_of_their_scan_allow(tmp_path: Path) -> None:
    (tmp_path / "blocks").mkdir()
    manifest = cut(scans(tmp_path), CUTTING, tmp_path / "blocks")

    labels: dict[str, set[int]] = {"mine.las": set(), "other.las": set()}
    known = np.zeros(3, np.int64)
    for block in read_blocks(str(tmp_path / "blocks"), manifest):
        assert block.label is not None
        labels[block.scan] |= set(block.label.tolist())
        known += np.bincount(block.label[block.is_core & (block.label >= 0)], minlength=3)
        in_training = to_data(block, ("xyz",), manifest.statistics).y.numpy()
        np.testing.assert_array_equal(in_training, np.where(block.is_core, block.label, IGNORE))

    assert labels == {"mine.las": {0, 1, 2, FIRST_SET}, "other.las": {0, -1, FIRST_SET}}
    assert manifest.class_counts["train"] == known.tolist()


def test_partial_labels_train_a_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = DeepGCNConfig(
        in_channels=3,
        num_classes=3,
        num_layers=2,
        channels=8,
        k=4,
        fusion_channels=8,
        prediction_channels=(8, 8),
    )
    sources = scans(tmp_path)

    config = PreprocessConfig(
        block_config=SMALL, scheme=SCHEME, rule=SplitRule(val_fraction=0.5), required=("xyz",)
    )
    checkpoint = train_on_scans(sources, config, network, TrainConfig(epochs=2, batch_size=2))

    assert checkpoint.label_scheme == SCHEME
    assert np.isfinite([epoch["train_loss"] for epoch in checkpoint.history]).all()
    assert np.isfinite([epoch["val_loss"] for epoch in checkpoint.history]).all()
