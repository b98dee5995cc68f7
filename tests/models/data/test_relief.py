"""Random ground: as steep as asked and no steeper, level as often as said, banks up and down with a flat between."""

from __future__ import annotations

import numpy as np
import pytest
from torch_geometric import seed_everything

from models.data.relief import random_relief, rugged_relief

STEP_M = 1.0
GRID = np.stack(np.meshgrid(*[np.arange(0.0, 120.0, STEP_M)] * 2, indexing="ij"), axis=-1)


def slopes(ground: np.ndarray) -> np.ndarray:
    """Between neighbours along both axes, (..., 2) metres a metre."""
    return np.stack([np.diff(ground, axis=0)[:, :-1], np.diff(ground, axis=1)[:-1]], axis=-1) / STEP_M


@pytest.fixture(scope="module")
def grounds() -> list[np.ndarray]:
    seed_everything(3)
    return [random_relief(GRID.reshape(-1, 2), 0.4).reshape(GRID.shape[:2]) for _ in range(400)]


@pytest.fixture(scope="module")
def kinds(grounds: list[np.ndarray]) -> dict[tuple[bool, bool], list[np.ndarray]]:
    """The grounds by whether they are inclined as a whole and whether they have a bank within the grid."""
    found: dict[tuple[bool, bool], list[np.ndarray]] = {}
    for ground in grounds:
        steps = slopes(ground).reshape(-1, 2)
        found.setdefault(
            (bool(np.abs(np.median(steps, axis=0)).max() > 1e-9), np.ptp(steps, axis=0).max() > 1e-9), []
        ).append(ground)
    return found


def test_ground_is_level_inclined_banked_or_both(kinds: dict[tuple[bool, bool], list[np.ndarray]]) -> None:
    assert {kind for kind, found in kinds.items() if len(found) > 40} == {
        (False, False), (False, True), (True, False), (True, True),
    }  # fmt: skip
    assert all((ground == 0).all() for ground in kinds[False, False])


def test_an_incline_is_as_steep_as_asked_at_most_and_to_every_side(
    kinds: dict[tuple[bool, bool], list[np.ndarray]],
) -> None:
    steps = np.array([slopes(ground)[0, 0] for ground in kinds[True, False]])
    steepest = np.linalg.norm(steps, axis=1)
    assert steepest.max() < 0.4 + 1e-9
    assert steepest.max() > 0.36
    assert steepest.min() < 0.04
    sides = np.histogram(np.arctan2(*steps.T), bins=4, range=(-np.pi, np.pi))[0]
    assert sides.min() > len(steps) / 10


def test_banks_are_up_and_down_and_between_the_gentlest_and_the_steepest(
    kinds: dict[tuple[bool, bool], list[np.ndarray]],
) -> None:
    banked = kinds[False, True]
    assert max(ground.max() for ground in banked) > 8
    assert min(ground.min() for ground in banked) < -8
    assert max(np.abs(ground).max() for ground in banked) <= 10
    steepest = np.array([np.linalg.norm(slopes(ground), axis=-1).max() for ground in banked])
    assert steepest.max() < 0.4 + 1e-9
    assert steepest.max() > 0.36
    assert np.quantile(steepest, 0.1) > 0.3 * 0.4 - 1e-9
    flat_tops = [(np.abs(ground) == np.abs(ground).max()).mean() for ground in banked]
    assert np.median(flat_tops) > 0.1, "what a roof would be taken for"


def test_the_same_seed_gives_the_same_ground() -> None:
    drawn = []
    for _ in range(2):
        seed_everything(5)
        drawn.append([random_relief(GRID[0], 0.3) for _ in range(5)])
    np.testing.assert_array_equal(*drawn)


@pytest.fixture(scope="module")
def rugged() -> list[np.ndarray]:
    seed_everything(4)
    flat = np.zeros(len(GRID.reshape(-1, 2)))
    return [rugged_relief(GRID.reshape(-1, 2), flat).reshape(GRID.shape[:2]) for _ in range(200)]


def test_rugged_ground_is_finite_and_no_mountain(rugged: list[np.ndarray]) -> None:
    assert all(np.isfinite(ground).all() for ground in rugged)
    # Terraces and scree rise over the whole grid of 120 m.
    assert max(np.ptp(ground) for ground in rugged) < 200


def test_half_of_rugged_grounds_are_flat_but_for_steep_faces(rugged: list[np.ndarray]) -> None:
    flat_share = [(np.abs(slopes(ground)).max(axis=-1) < 1e-9).mean() for ground in rugged]
    steepest = [np.abs(slopes(ground)).max() for ground in rugged]
    stepped = [steep for share, steep in zip(flat_share, steepest, strict=True) if share > 0.3]

    assert 0.35 < len(stepped) / len(rugged) < 0.65
    assert np.median(stepped) > 1  # over 45 degrees


def test_what_stands_on_rock_is_not_made_rough() -> None:
    rough = []
    for height in (0.0, 5.0):
        seed_everything(5)
        grounds = [rugged_relief(GRID.reshape(-1, 2), np.full(GRID.size // 2, height)) for _ in range(40)]
        curved = [np.abs(np.diff(ground.reshape(GRID.shape[:2]), 2, axis=0)) > 1e-9 for ground in grounds]
        rough.append(np.array([share.mean() > 0.95 for share in curved]))

    assert 0.3 < rough[0].mean() < 0.7
    assert not rough[1].any()
