"""Random ground to lay augmented blocks on: slopes, embankments, cuttings, cliffs, terraces, rock, scree.

A network whose training scans are flat takes the flat top of a dam, with its banks, for a roof, and a hillside for
an object on the ground. Objects on augmented ground stay upright, as on real ground.
"""

from __future__ import annotations

import math

import numpy as np
import torch

_HEIGHT_M = 10.0  # of a bank at most
_WIDTHS_M = (5.0, 80.0)  # of the top of an embankment, or the bottom of a cutting
_GENTLEST = 0.3  # bank, as a share of the steepest
_CLIFF_M = (2.0, 20.0)
_TERRACE_M = (0.8, 3.0)
_TERRACES_M = (3.0, 10.0)  # apart
_FACE_M = (0.1, 1.5)  # from the foot of a cliff or of a wall to its top, seen from above
_WINDS_M, _WINDING = (5.0, 30.0), 0.1  # the length of an edge's bends, and how wide they are as a share of it
_ROCK_WAVES_M = (1.5, 12.0)
_ROCK = (0.1, 0.35)  # height of a wave as a share of its length
_SCREE_SLOPES = (0.5, 0.9)
_BOULDERS_M, _SCREE_ROUGHNESS = (0.8, 3.0), 0.15


def random_relief(xy: np.ndarray, steepest: float) -> np.ndarray:
    """Heights of a random ground.

    Half of the grounds are level but for a bank, half have no bank. Drawn from torch's generator.

    Args:
        xy: (N, 2) metres.
        steepest: slope, metres a metre, of the ground as a whole and again of banks.

    Returns:
        (N,) float64 metres.
    """
    hilly, slope, banked, height, bank, width, where = torch.rand(7).tolist()
    ground = steepest * slope * _across(xy) if hilly < 0.5 else np.zeros(len(xy))
    if banked < 0.5:
        side = _across(xy)
        height = _HEIGHT_M * (2 * height - 1)
        run = abs(height) / (steepest * (_GENTLEST + (1 - _GENTLEST) * bank))
        narrowest, widest = _WIDTHS_M
        half = narrowest * (widest / narrowest) ** width / 2
        off = np.abs(side - np.quantile(side, where))
        ground += height * np.clip((half - off) / max(run, 1e-9) + 1, 0, 1)
    return ground


def _across(xy: np.ndarray) -> np.ndarray:
    """How far each point lies towards a random side, (N,)."""
    angle = 2 * math.pi * torch.rand(()).item()
    along: np.ndarray = xy.astype(np.float64) @ [math.cos(angle), math.sin(angle)]
    return along


def rugged_relief(xy: np.ndarray, above_ground: np.ndarray) -> np.ndarray:
    """Heights of a random cliff, of terraces, of bare rock or of scree, each as often. Drawn from torch's generator.

    Rock is rough where the ground is; what stands on it, more than 2 m above it, is moved by the same everywhere.

    Args:
        xy: (N, 2) metres.
        above_ground: (N,) metres, the height of each point above the ground as it was.

    Returns:
        (N,) float64 metres.
    """
    kind, first, second, where = torch.rand(4).tolist()
    rough = np.clip(2 - above_ground, 0, 1)
    if kind < 0.5:
        side = _across(xy) + _waves(xy, 4, _WINDS_M, _WINDING)
        run = _between(_FACE_M, second)
        if kind < 0.25:
            edge = np.quantile(side, 0.1 + 0.8 * where)
            return _between(_CLIFF_M, first) * np.clip((side - edge) / run, 0, 1)
        apart, height = _between(_TERRACES_M, where), _between(_TERRACE_M, first)
        steps, beyond = np.divmod(side - side.min(initial=0.0), apart)
        return height * (steps + np.clip((beyond - apart + run) / run, 0, 1))
    if kind < 0.75:
        return rough * _waves(xy, 8, _ROCK_WAVES_M, _between(_ROCK, first), sharp=True)
    slope = _SCREE_SLOPES[0] + (_SCREE_SLOPES[1] - _SCREE_SLOPES[0]) * first
    return slope * _across(xy) + rough * _waves(xy, 8, _BOULDERS_M, _SCREE_ROUGHNESS)


def _waves(
    xy: np.ndarray, number: int, lengths: tuple[float, float], steepness: float, sharp: bool = False
) -> np.ndarray:
    """The sum of plane waves of random lengths and directions, (N,): with ridges and clefts where it is sharp.

    The steepness is a wave's height by its length; the waves together are as high as one of them would be.
    """
    total = np.zeros(len(xy))
    for _ in range(number):
        length, phase = _between(lengths, torch.rand(()).item()), 2 * math.pi * torch.rand(()).item()
        wave = np.sin(2 * math.pi * _across(xy) / length + phase)
        if sharp:
            wave = 1 - 2 * np.abs(wave)
        total += steepness * length / math.sqrt(number) * wave
    return total


def _between(limits: tuple[float, float], share: float) -> float:
    """From one limit to the other, alike on the logarithm's scale."""
    low, high = limits
    return low * (high / low) ** share
