"""Attributes that only some scans of a dataset have: blocks of the other scans get a fixed value for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pointcloud.blocks.block import Block
from pointcloud.blocks.features import FeatureStatistics

_PLAIN = {"return_number": 1, "number_of_returns": 1, "red": 32768, "green": 32768, "blue": 32768}
"""A single return, a middle grey; an intensity is as the others' mean."""


def values_to_fill(given: Sequence[Collection[str]], statistics: FeatureStatistics) -> dict[str, int]:
    """What stands for each attribute that some scans have and others lack.

    Args:
        given: the attributes of each scan.
    """
    return {
        name: _PLAIN.get(name, round(statistics.mean.get(name, 0.0)))
        for name in sorted({name for names in given for name in names})
        if not all(name in names for names in given)
    }


def fill(block: Block, values: Mapping[str, int]) -> Block:
    """A block with the attributes that it lacks: (N,) uint16 each."""
    lacking = {name: value for name, value in values.items() if name not in block.attributes}
    if not lacking:
        return block
    more = {name: np.full(len(block), value, np.uint16) for name, value in lacking.items()}
    return replace(block, attributes=block.attributes | more)
