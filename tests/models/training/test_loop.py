"""The training step: it learns, it resumes to the same weights, and it stops before weights are spoilt."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Batch

from models.data.augmentation import Augmentation
from models.data.dataset import Batches, BlockDataset, batches
from models.metrics import Scores
from models.network.configurations import DeepGCNConfig
from models.network.deepgcn import DeepGCN
from models.recipes import TrainConfig
from models.training import loop
from models.training.loop import TrainState, begin, fit, train_step, validate
from models.training.losses import class_weights
from pointcloud.blocks.block import Block
from pointcloud.blocks.features import FeatureStatistics
from pointcloud.cloud import Cloud
from pointcloud.errors import PointloomError
from pointcloud.labels import IGNORE, LabelScheme
from tests.support.clouds import SCHEME, SMALL, assert_one_sentence, cut

FEATURES = ("xyz", "height")
AUGMENTATION = Augmentation(features=FEATURES, stretch=1.5, channel_drop=0.2)
STATISTICS = FeatureStatistics({"height": 1.5}, {"height": 1.5})
TWO = LabelScheme("two", (SCHEME.classes[0], SCHEME.classes[2]))
NETWORK = DeepGCNConfig(
    in_channels=4,
    num_classes=2,
    num_layers=3,
    channels=8,
    k=4,
    fusion_channels=16,
    prediction_channels=(16, 8),
)
TILE = SMALL.tile_size_m


def two_class_blocks(num_tiles: int = 1) -> list[Block]:
    """Flat ground with a roof 3 m above half of it."""
    rng = np.random.default_rng(0)
    xyz = rng.random((150 * num_tiles, 3)) * [7.9 * num_tiles, 7.9, 0.2]
    roof = xyz[:, 1] > 4
    xyz[roof, 2] += 3
    return cut(Cloud(xyz, {"classification": np.where(roof, 6, 2).astype(np.uint8)}), scheme=TWO)


def loader(blocks: list[Block], batch_size: int = 1, augment: bool = False, shuffle: bool = False) -> Batches:
    dataset = BlockDataset(blocks, FEATURES, STATISTICS, AUGMENTATION if augment else None)
    return batches(dataset, 0, batch_size=batch_size, shuffle=shuffle)


def start(config: TrainConfig, steps: int, seed: int = 0, **network: Any) -> TrainState:
    torch.manual_seed(seed)
    return begin(DeepGCN(replace(NETWORK, **network)), config, steps)


def quiet(state: TrainState) -> None:
    pass


def run(state: TrainState, blocks: list[Block], config: TrainConfig, **changes: Any) -> None:
    train = loader(blocks, config.batch_size, config.augment, shuffle=True)
    known: dict[str, Any] = {"weights": None, "on_epoch": quiet} | changes
    fit(state, train, loader(blocks), config, TILE, TWO.names, known["weights"], known["on_epoch"])


def assert_equal_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_a_tiny_network_learns_one_tiny_block() -> None:
    blocks = two_class_blocks()
    assert len(blocks) == 1
    config = TrainConfig(epochs=40, batch_size=1, learning_rate=0.02, augment=False)
    state = start(config, 1)
    counts = np.bincount(blocks[0].label[blocks[0].is_core]).tolist()
    run(state, blocks, config, weights=class_weights(counts))
    assert [h["epoch"] for h in state.history] == list(range(1, 41))
    losses = [h["train_loss"] for h in state.history]
    assert losses[-1] < 0.5 * losses[0]
    assert state.history[-1]["val_loss"] < 0.5 * state.history[0]["val_loss"]
    assert max(h["val_miou"] for h in state.history) > 0.95
    network = DeepGCN(NETWORK)
    network.load_state_dict(state.best)
    scores = Scores.from_confusion(validate(network, loader(blocks), TILE, 2)[1], TWO.names)
    assert scores.miou == max(h["val_miou"] for h in state.history), "best holds the best epoch's weights"
    assert scores.miou is not None
    assert scores.miou > 0.95


def test_the_learning_rate_warms_up_and_decays_to_nothing() -> None:
    config = TrainConfig(epochs=5, batch_size=1, augment=False)
    blocks = two_class_blocks(4)
    state, rates = start(config, len(blocks)), []
    real = state.scheduler.step
    state.scheduler.step = lambda: (rates.append(state.optimizer.param_groups[0]["lr"]), real())
    run(state, blocks, config)
    assert len(rates) == 5 * len(blocks)
    assert max(rates) == pytest.approx(config.learning_rate, rel=0.05)
    assert rates.index(max(rates)) <= len(rates) // 4
    assert rates[-1] < config.learning_rate / 50


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_training_ends_in_the_weights_of_an_uninterrupted_one(stop_after: int) -> None:
    # Everything that draws random numbers is on: order, augmentation, dropout, stochastic dilation.
    blocks = two_class_blocks(3)
    config = TrainConfig(epochs=4, batch_size=2, seed=5)
    chances = {"dropout": 0.5, "stochastic_epsilon": 0.5}
    saved: list[bytes] = []

    def save(state: TrainState) -> None:
        stream = io.BytesIO()
        torch.save(state.to_dict(), stream)
        saved.append(stream.getvalue())

    whole = start(config, 2, **chances)
    torch.manual_seed(11)
    run(whole, blocks, config, on_epoch=save)
    assert len(saved) == 4

    resumed = start(config, 2, seed=99, **chances)
    resumed.load(torch.load(io.BytesIO(saved[stop_after - 1]), weights_only=True))
    assert len(resumed.history) == stop_after
    torch.manual_seed(11)
    run(resumed, blocks, config)
    assert_equal_weights(resumed.network.state_dict(), whole.network.state_dict())
    assert_equal_weights(resumed.best, whole.best)
    for one, other in zip(resumed.history, whole.history, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {
            k: v for k, v in other.items() if k != "seconds"
        }
    assert (
        resumed.optimizer.state_dict()["state"][0]["step"] == whole.optimizer.state_dict()["state"][0]["step"]
    )


def test_no_two_epochs_and_no_two_seeds_draw_alike() -> None:
    blocks = two_class_blocks(1)
    config = TrainConfig(epochs=3, batch_size=1)
    seen: list[torch.Tensor] = []

    def see(network: Any, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
        if network.training:
            seen.append(inputs[0][:, :3].clone())

    for seed in (0, 1, 0):
        state = start(config, 1)
        torch.manual_seed(seed)
        train = batches(BlockDataset(blocks, FEATURES, STATISTICS, AUGMENTATION, seed), 0, batch_size=1)
        state.network.register_forward_pre_hook(see)
        fit(state, train, loader(blocks), config, TILE, TWO.names, None, quiet)
    first, second, again = seen[:3], seen[3:6], seen[6:]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    different = [*first, *second]
    assert not any(torch.equal(a, b) for i, a in enumerate(different) for b in different[:i])


def test_a_finished_training_does_nothing_more() -> None:
    blocks, config = two_class_blocks(), TrainConfig(epochs=2, batch_size=1)
    state = start(config, 1)
    run(state, blocks, config)
    before = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
    run(state, blocks, config)
    assert len(state.history) == 2
    assert_equal_weights(state.network.state_dict(), before)


def first_batch(blocks: list[Block]) -> Batch:
    return next(iter(loader(blocks)))


def test_halo_and_ignored_points_do_not_change_the_loss() -> None:
    config = TrainConfig(augment=False)
    batch = first_batch(two_class_blocks(2))
    assert (batch.y == IGNORE).any()
    value = train_step(start(config, 1), [batch], config, TILE, None)
    again = start(config, 1)
    again.network.train()
    labelled = batch.y != IGNORE
    logits = again.network(loop.network_input(batch, TILE), batch.ptr)
    # start() seeded both alike, so that dropout and dilation draw the same.
    expected = nn.functional.cross_entropy(logits[labelled], batch.y[labelled], label_smoothing=0.1)
    assert value == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_or_gradient_of_nan_stops_before_weights_are_spoilt(what: str) -> None:
    config = TrainConfig(augment=False)
    batch = first_batch(two_class_blocks())
    state = start(config, 10)
    train_step(state, [batch], config, TILE, None)
    before = {name: p.detach().clone() for name, p in state.network.named_parameters()}
    moments = state.optimizer.state_dict()["state"][0]["exp_avg"].clone()
    weights = torch.tensor([float("nan"), 1.0]) if what == "loss" else None
    if what == "gradient":
        next(state.network.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(PointloomError, match=f"the {what} became (NaN|infinite) in epoch 1") as error:
        train_step(state, [batch], config, TILE, weights)
    assert_one_sentence(error, "smaller learning_rate")
    for name, parameter in state.network.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert torch.equal(state.optimizer.state_dict()["state"][0]["exp_avg"], moments)


def test_the_block_that_spoils_a_batch_is_named() -> None:
    config = TrainConfig(augment=False)
    batch = next(iter(loader(two_class_blocks(3), batch_size=3)))
    assert len(batch.name) == 3
    batch.extra[batch.batch == 1] = 1e38
    with pytest.raises(PointloomError, match="loss became NaN") as error:
        train_step(start(config, 1), [batch], config, TILE, None)
    assert batch.name[1] in str(error.value)
    assert batch.name[0] not in str(error.value)
    assert batch.name[2] not in str(error.value)
    assert_one_sentence(error, "smaller learning_rate")


def test_absurd_attribute_values_are_said() -> None:
    config = TrainConfig(augment=False)
    batch = first_batch(two_class_blocks())
    batch.extra[3] = float("nan")
    with pytest.raises(PointloomError, match="finite") as error:
        train_step(start(config, 1), [batch], config, TILE, None)
    assert_one_sentence(error, "")


def test_validation_is_over_labelled_core_points_and_changes_nothing() -> None:
    blocks = two_class_blocks(3)
    torch.manual_seed(0)
    network = DeepGCN(NETWORK)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    loss, counts = validate(network, loader(blocks), TILE, 2)
    assert_equal_weights(network.state_dict(), before)
    assert counts.sum() == sum(int(b.is_core.sum()) for b in blocks)
    losses = []
    with torch.no_grad():
        for batch in loader(blocks):
            logits = network.eval()(loop.network_input(batch, TILE), batch.ptr)
            keep = batch.y != IGNORE
            losses.append(nn.functional.cross_entropy(logits[keep], batch.y[keep], reduction="none"))
    assert loss == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)


def test_class_weights_by_hand() -> None:
    weights = class_weights([100, 0, 400])
    assert weights[1] == 0
    assert weights[0] / weights[2] == pytest.approx(2.0)
    assert (weights * torch.tensor([100, 0, 400])).sum() / 500 == pytest.approx(1.0)
    assert class_weights([7, 7]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("counts", [[5], [0, 5, 0], [0, 0], []])
def test_fewer_than_two_classes_are_nothing_to_tell_apart(counts: list[int]) -> None:
    with pytest.raises(PointloomError, match="expected two or more") as error:
        class_weights(counts)
    assert_one_sentence(error, f"{sum(c > 0 for c in counts)} class")


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}], ids=str)
def test_settings_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(PointloomError):
        TrainConfig(**change)


def test_the_saved_state_is_tensors_and_plain_numbers() -> None:
    config = TrainConfig(epochs=1, batch_size=1)
    state = start(config, 1)
    run(state, two_class_blocks(), config)
    stream = io.BytesIO()
    torch.save(state.to_dict(), stream)
    stream.seek(0)
    saved = torch.load(stream, weights_only=True)
    assert saved["history"] == state.history
    for name, tensor in state.network.state_dict().items():
        assert torch.equal(saved["network"][name], tensor), name
