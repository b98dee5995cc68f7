"""What is unlike the training lies far away, however sure the network is; a checkpoint keeps what it knows of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.familiarity import distances, learn_familiarity, some
from models.predictor import Predictor
from models.weights.checkpoint import Checkpoint, Familiarity, read_checkpoint, save_checkpoint
from pointcloud.blocks.block import Block
from pointcloud.errors import SchemaError
from tests.models.test_predictor import make_predictor
from tests.support.clouds import cut, make_cloud

BLOCKS = [block for seed in range(6) for block in cut(make_cloud(900, seed=seed))]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return learn_familiarity(make_predictor().checkpoint, BLOCKS)


def mean_distance(checkpoint: Checkpoint, block: Block) -> float:
    found: list[float] = []
    looked = Predictor(checkpoint).logits([block], lambda b, far: found.append(float(far[b.is_core].mean())))
    assert len(list(looked)) == len(found) == 1
    return found[0]


def test_distance_is_that_of_mahalanobis_to_the_nearest_class() -> None:
    random = np.random.default_rng(0)
    root, means = random.normal(size=(3, 3)), random.normal(size=(2, 3))
    covariance = root @ root.T + np.eye(3)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance)).T
    known = Familiarity(means=torch.tensor(means @ whitening), whitening=torch.tensor(whitening), limit=1.0)
    points = random.normal(size=(5, 3))

    found = distances(torch.tensor(points), known)

    away = points[:, None] - means
    squares = np.einsum("pki,ij,pkj->pk", away, np.linalg.inv(covariance), away)
    np.testing.assert_allclose(found.numpy(), np.sqrt(squares.min(axis=1)))


def test_a_tile_of_the_training_is_at_a_distance_of_one(checkpoint: Checkpoint) -> None:
    far = [mean_distance(checkpoint, block) for block in BLOCKS]

    assert np.mean(far) == pytest.approx(1, abs=0.1)
    assert checkpoint.familiarity is not None
    assert np.mean(np.array(far) > checkpoint.familiarity.limit) < 0.1


def test_what_training_was_not_like_is_beyond_the_limit(checkpoint: Checkpoint) -> None:
    block = BLOCKS[0]
    strange = replace(block, height=block.height + 60, position=block.position * np.float32([1, 1, 8]))

    assert checkpoint.familiarity is not None
    assert mean_distance(checkpoint, strange) > 1.5 * checkpoint.familiarity.limit


def test_nothing_is_said_where_the_checkpoint_does_not_know() -> None:
    found: list[Block] = []

    logits = list(Predictor(make_predictor().checkpoint).logits(BLOCKS[:2], lambda b, _: found.append(b)))

    assert len(logits) == 2
    assert not found


def test_too_few_blocks_teach_nothing() -> None:
    assert learn_familiarity(make_predictor().checkpoint, BLOCKS[:3]).familiarity is None


def test_features_that_never_vary_teach_nothing() -> None:
    checkpoint = make_predictor().checkpoint
    dead = {name: torch.zeros_like(values) for name, values in checkpoint.state.items()}

    assert learn_familiarity(replace(checkpoint, state=dead), BLOCKS).familiarity is None


def test_some_blocks_are_evenly_spread() -> None:
    assert len(list(some(iter(BLOCKS), len(BLOCKS)))) == len(BLOCKS)
    assert len(list(some(iter(BLOCKS * 100), len(BLOCKS) * 100))) <= 600


def test_a_checkpoint_keeps_it_and_weights_without_it_stay_as_they_are(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    save_checkpoint(str(tmp_path / "a"), replace(checkpoint, temperature=1.5))
    back = read_checkpoint(str(tmp_path / "a"))

    assert back.temperature == 1.5
    assert back.familiarity is not None
    assert checkpoint.familiarity is not None
    assert back.familiarity.limit == checkpoint.familiarity.limit
    torch.testing.assert_close(back.familiarity.whitening, checkpoint.familiarity.whitening, rtol=0, atol=0)
    assert back.state.keys() == checkpoint.state.keys()
    save_checkpoint(str(tmp_path / "b"), make_predictor().checkpoint)
    assert "temperature" not in (tmp_path / "b" / "checkpoint.json").read_text()


def test_temperature_divides_the_logits() -> None:
    checkpoint = make_predictor().checkpoint

    (_, plain), (_, cool) = (
        next(Predictor(one).logits(BLOCKS[:1])) for one in (checkpoint, replace(checkpoint, temperature=2.0))
    )

    np.testing.assert_allclose(cool, plain / 2, rtol=1e-6)


def test_a_temperature_that_cannot_be_is_refused() -> None:
    with pytest.raises(SchemaError, match="temperature must be positive, found 0"):
        replace(make_predictor().checkpoint, temperature=0.0)
