"""Blocks as the network takes them, one after the other.

torch_geometric, whose import takes longer than torch's, is for training alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from pointcloud.blocks.block import Block
from pointcloud.blocks.features import FeatureStatistics, point_features
from pointcloud.errors import ScanError


class HasPoints(Protocol):
    """What `network_input` needs: also a batch of torch_geometric has it."""

    @property
    def pos(self) -> Tensor:
        """(P, 3) metres."""

    @property
    def extra(self) -> Tensor:
        """(P, C - 3) further channels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StackedBlocks:
    """B blocks of P points together.

    Attributes:
        pos: (P, 3) metres from the middle of each block's tile.
        extra: (P, C - 3) further channels.
        ptr: (B + 1,) int64, the first row of every block, and P; on the CPU.
    """

    pos: Tensor
    extra: Tensor
    ptr: Tensor

    def to(self, device: torch.device) -> StackedBlocks:
        """The same on a device, but for `ptr`."""
        return replace(self, pos=self.pos.to(device), extra=self.extra.to(device))


def name_of(block: Block) -> str:
    """The name of a block in messages: scan and tile."""
    return f"scan {block.scan!r} tile {block.tile[0]}, {block.tile[1]}"


def to_tensors(
    block: Block, features: tuple[str, ...], statistics: FeatureStatistics
) -> tuple[Tensor, Tensor]:
    """Positions (N, 3) in metres and further channels (N, C - 3) of a block of N points.

    Raises:
        ScanError: the block lacks an attribute that a feature needs, or has NaN or infinite values.
    """
    extra = torch.from_numpy(point_features(block, features, statistics))
    position = torch.from_numpy(block.position)
    if not (torch.isfinite(extra).all() and torch.isfinite(position).all()):
        raise ScanError(
            f"{name_of(block)} has NaN or infinite features; check the scan's attributes, or leave it out."
        )
    return position, extra


def stack(blocks: Sequence[Block], features: tuple[str, ...], statistics: FeatureStatistics) -> StackedBlocks:
    """Blocks one after the other; of different sizes, nothing padded.

    Raises:
        ScanError: as `to_tensors`.
    """
    positions, extras = zip(*(to_tensors(block, features, statistics) for block in blocks), strict=True)
    ptr = torch.tensor([0, *accumulate(map(len, positions))])
    return StackedBlocks(pos=torch.cat(positions), extra=torch.cat(extras), ptr=ptr)


def network_input(points: HasPoints, tile_size_m: float) -> Tensor:
    """The (P, C) features of blocks: coordinates in units of half a tile, then the other channels."""
    return torch.cat([points.pos / (tile_size_m / 2), points.extra], dim=1)
