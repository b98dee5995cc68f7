"""Labels for every point, the same ones whatever the order of the points and the company of the blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.data.dataset import to_data
from models.familiarity import learn_familiarity
from models.network.configurations import DeepGCNConfig
from models.network.deepgcn import DeepGCN
from models.predictor import Predictor, Stopwatch
from models.weights.checkpoint import Checkpoint
from pointcloud.blocks.block import Block
from pointcloud.blocks.features import FeatureStatistics
from pointcloud.blocks.tiles import iterate_blocks, thin
from pointcloud.cloud import Cloud
from pointcloud.errors import ScanError
from tests.support.clouds import SCHEME, SMALL, assert_one_sentence, cut, make_cloud
from tests.support.voxel_votes import label_cloud

STATISTICS = FeatureStatistics({"height": 1.0, "intensity": 3e4}, {"height": 2.0, "intensity": 2e4})
NETWORK = DeepGCNConfig(
    in_channels=5,
    num_classes=3,
    num_layers=3,
    channels=8,
    k=4,
    fusion_channels=16,
    prediction_channels=(16, 8),
)


def make_predictor(seed: int = 0, **config: object) -> Predictor:
    """A network as drawn, with batch statistics of the right size, so that all classes occur."""
    torch.manual_seed(seed)
    network = DeepGCN(NETWORK).train()
    for block in cut(make_cloud(400, seed=9)):
        item = to_data(block, ("xyz", "height", "intensity"), STATISTICS)
        network(torch.cat([item.pos / 4, item.extra], dim=1), torch.tensor([0, len(block)]))
    return Predictor(
        Checkpoint(
            network=NETWORK, state=network.state_dict(), block_config=replace(SMALL, **config), label_scheme=SCHEME,
            features=("xyz", "height", "intensity"), statistics=STATISTICS,
        )
    )  # fmt: skip


CLOUD = make_cloud(1200, seed=2, corner=(652_000.0, 6_600_000.0, 40.0))


@pytest.mark.parametrize(
    "config", [{}, {"overlap": 2}, {"max_points": 64, "halo_m": 0.5}, {"thin": False}], ids=str
)
def test_every_point_has_a_class_and_a_confidence_the_same_each_time(config: dict[str, object]) -> None:
    predictor = make_predictor(**config)
    classes, confidence = label_cloud(predictor, "a", CLOUD)
    assert classes.shape == confidence.shape == (len(CLOUD),)
    assert set(np.unique(classes)) == {0, 1, 2}
    assert confidence.dtype == np.float32
    assert (confidence >= 1 / 3 - 1e-6).all()
    assert (confidence <= 1).all()
    for other in (predictor, make_predictor(**config)):
        again = label_cloud(other, "a", CLOUD)
        np.testing.assert_array_equal(classes, again[0])
        np.testing.assert_array_equal(confidence, again[1])


@pytest.mark.parametrize("config", [{}, {"overlap": 2}, {"max_points": 64, "halo_m": 0.5}], ids=str)
def test_the_order_of_the_points_changes_nothing(config: dict[str, object]) -> None:
    predictor = make_predictor(**config)
    classes, confidence = label_cloud(predictor, "a", CLOUD)
    order = np.random.default_rng(0).permutation(len(CLOUD))
    other_classes, other_confidence = label_cloud(predictor, "a", CLOUD[order])
    np.testing.assert_array_equal(classes[order], other_classes)
    np.testing.assert_array_equal(confidence[order], other_confidence)


@pytest.mark.parametrize("batch_points", [1, 500, 10**6])
def test_the_company_of_a_block_changes_nothing(batch_points: int) -> None:
    predictor = make_predictor()
    classes, confidence = label_cloud(predictor, "a", CLOUD)
    other = Predictor(predictor.checkpoint, batch_points=batch_points)
    other_classes, other_confidence = label_cloud(other, "a", CLOUD)
    np.testing.assert_array_equal(classes, other_classes)
    np.testing.assert_allclose(confidence, other_confidence, atol=1e-5)


def test_groups_keep_the_order_and_their_size() -> None:
    predictor = Predictor(make_predictor().checkpoint, batch_points=500)
    together: list[list[int]] = []
    predictor.network.register_forward_pre_hook(lambda _, inputs: together.append(inputs[1].diff().tolist()))
    blocks = cut(CLOUD)
    assert [block for block, _ in predictor.logits(blocks)] == blocks
    assert [size for group in together for size in group] == list(map(len, blocks))
    assert all(len(group) == 1 or sum(group) <= 500 for group in together)
    assert len(together) < len(blocks)
    assert list(predictor.logits([])) == []


def test_blocks_are_taken_as_they_are_needed() -> None:
    """A scan's blocks are never all in memory: the iterator runs one batch ahead, no more."""
    taken: list[int] = []

    def blocks() -> Iterator[Block]:
        for number, block in enumerate(iterate_blocks("a", CLOUD, thin(CLOUD, SMALL), SMALL, None)):
            taken.append(number)
            yield block

    predicted = Predictor(make_predictor().checkpoint, batch_points=1).logits(blocks())
    next(predicted)
    time.sleep(0.5)  # what runs ahead has had its time
    assert len(taken) == 3


def test_labels_in_the_scan_are_not_looked_at() -> None:
    predictor = make_predictor()
    bare = Cloud(CLOUD.xyz, {"intensity": CLOUD.attributes["intensity"]})
    for one, other in zip(label_cloud(predictor, "a", CLOUD), label_cloud(predictor, "a", bare), strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_point_is_labelled() -> None:
    classes, confidence = label_cloud(make_predictor(), "a", CLOUD[:1])
    assert classes.shape == confidence.shape == (1,)


def test_a_missing_attribute_and_an_absurd_extent_are_said() -> None:
    predictor = make_predictor()
    with pytest.raises(ScanError, match="'intensity'") as error:
        label_cloud(predictor, "poor.laz", Cloud(CLOUD.xyz))
    assert_one_sentence(error, "poor.laz")
    xyz = CLOUD.xyz.copy()
    xyz[0] = 0
    with pytest.raises(ScanError, match="stray points"):
        label_cloud(predictor, "a", Cloud(xyz, CLOUD.attributes))


def test_rotations_average_the_logits_of_turned_blocks() -> None:
    blocks = cut(CLOUD, scheme=None)[:3]
    turned: list[np.ndarray] = []
    for degrees in (0, 120, 240):
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        about_z = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        moved = [replace(b, position=(b.position @ about_z.T).astype(np.float32)) for b in blocks]
        turned.append(np.concatenate([logits for _, logits in make_predictor().logits(moved)]))
    checkpoint = make_predictor().checkpoint
    found = [logits for _, logits in Predictor(checkpoint, rotations=3).logits(blocks)]
    assert [len(logits) for logits in found] == [len(b) for b in blocks]
    expected = np.mean(turned, axis=0)
    # Points that are equally near may be other neighbours after float32 has turned them.
    assert np.quantile(np.abs(np.concatenate(found) - expected), 0.99) < 1e-3
    assert np.abs(turned[0] - expected).max() > 0.1


def test_smoothing_averages_the_logits_of_the_nearest_points_of_a_block() -> None:
    blocks, num_near = cut(CLOUD, scheme=None)[:3], 8
    assert sum(map(len, blocks)) > 3 * num_near, "several blocks in one batch: none may reach into another"
    predictor = make_predictor()
    rough = [logits for _, logits in predictor.logits(blocks)]
    smooth = [logits for _, logits in Predictor(predictor.checkpoint, smoothing=num_near).logits(blocks)]
    for block, before, after in zip(blocks, rough, smooth, strict=True):
        apart = np.linalg.norm(block.position[:, None].astype(float) - block.position, axis=2)
        nearest = np.argsort(apart, axis=1)[:, :num_near]
        # Where two are equally far, or nearly, float32 may choose the other.
        reach = np.sort(apart, axis=1)[:, num_near - 1 : num_near + 1]
        sure = (np.diff(reach, axis=1) > 1e-3)[:, 0] if len(block) > num_near else np.ones(len(block), bool)
        assert sure.mean() > 0.9
        np.testing.assert_allclose(after[sure], before[nearest].mean(axis=1)[sure], atol=1e-4)
    assert np.ptp(np.concatenate(smooth), axis=0).max() < np.ptp(np.concatenate(rough), axis=0).max()


def test_warming_up_changes_nothing() -> None:
    cold, warm = make_predictor(), make_predictor()
    warm.warm_up()
    for one, other in zip(label_cloud(cold, "a", CLOUD), label_cloud(warm, "a", CLOUD), strict=True):
        np.testing.assert_array_equal(one, other)


def test_threads_share_a_predictor_and_each_has_its_own_results_and_times() -> None:
    blocks = [block for seed in range(6) for block in cut(make_cloud(900, seed=seed))]
    clouds = [make_cloud(1200, seed=seed, corner=(652_000.0, 6_600_000.0, 40.0)) for seed in (2, 3)]
    checkpoint = learn_familiarity(make_predictor().checkpoint, blocks)
    assert checkpoint.familiarity is not None

    def labelled(predictor: Predictor, cloud: Cloud) -> tuple[np.ndarray, np.ndarray, Stopwatch]:
        far: list[np.ndarray] = []
        watch = Stopwatch()
        logits = [
            logits
            for _ in range(5)
            for _, logits in predictor.logits(cut(cloud), lambda _, distance: far.append(distance), watch)
        ]
        return np.concatenate(logits), np.concatenate(far), watch

    shared = Predictor(checkpoint, batch_points=64)
    with ThreadPoolExecutor(2) as pool:
        began = time.perf_counter()
        together = list(pool.map(lambda cloud: labelled(shared, cloud), clouds))
        elapsed = time.perf_counter() - began
    for cloud, (logits, far, _) in zip(clouds, together, strict=True):
        alone = labelled(Predictor(checkpoint, batch_points=64), cloud)
        np.testing.assert_array_equal(logits, alone[0])
        np.testing.assert_array_equal(far, alone[1])
        assert alone[2].waiting < alone[2].network
    assert sum(watch.network for *_, watch in together) <= elapsed, "one at a time"
