"""Random ground to lay augmented blocks on: a slope, an embankment, a cutting.

A network whose training scans are flat takes the flat top of a dam, with its banks, for a roof, and a hillside for
what stands on the ground. What stands on augmented ground stays upright, as it does on real one.
"""

from __future__ import annotations

import math

import numpy as np
import torch

_HEIGHT_M = 10.0  # of a bank at most
_WIDTHS_M = (5.0, 80.0)  # of the top of an embankment, or the bottom of a cutting
_GENTLEST = 0.3  # bank, as a share of the steepest


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
