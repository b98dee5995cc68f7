"""Random changes of training blocks: turned, mirrored, of other sizes, ground, density and noise, channels missing.

A block is deformed before its features are computed, so that the shape of its surroundings
(`pointcloud.blocks.surroundings`) is that of the deformed block. With few training scans this matters most:
heights stretched by up to a half keep a network from learning that all tall things are buildings, and missing channels
keep it from depending on a single channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch_geometric.transforms as T
from torch import Tensor
from torch_geometric.data import Data

from models.data.relief import random_relief, rugged_relief
from models.recipes import TrainConfig
from pointcloud.blocks.block import Block
from pointcloud.blocks.features import num_channels
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.height import height_above, lowest_points
from pointcloud.labels import IGNORE

_SCALE = 1.15
_JITTER_M = 0.02


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of training blocks, drawn anew in each epoch (`models.data.dataset`).

    Attributes:
        features: of the network, in their order.
        stretch: heights are multiplied by 1 / stretch to stretch, and the plane by 1 / 1.15 to 1.15; sizes alike
            on the logarithm's scale. 1 leaves heights as they are.
        crop: up to this share of a block's points is left out, those farthest from one drawn at random. The fused
            vector of a block says what else is there: of few whole blocks a network may learn it by heart.
        relief: the ground is a slope, an embankment or a cutting, none steeper than this many metres a metre, and what
            stands on it stays upright (`models.data.relief`); 0 leaves it as it is.
        rugged: the probability of a cliff, of terraces, of rock or of scree (`models.data.relief`) in place of that.
        thinning: half of the blocks lose points at random, of up to so many one is left.
        return_drop: the probability that of each pulse the first return and the last are left, or the first alone, as
            other scanners record them.
        ground_window_m: window in which heights count from the lowest point, metres.
        colour_drop: the probability that a block loses its colours, where rgb is a feature (PointNeXt, 2022).
        channel_drop: the probability of every other channel but xyz to be 0 in a block.
    """

    features: tuple[str, ...] = ("xyz",)
    stretch: float = 1.0
    crop: float = 0.0
    relief: float = 0.0
    rugged: float = 0.0
    thinning: float = 1.0
    return_drop: float = 0.0
    ground_window_m: float = BlockConfig.ground_window_m
    colour_drop: float = 0.0
    channel_drop: float = 0.0

    @staticmethod
    def of(config: TrainConfig, features: tuple[str, ...], blocks: BlockConfig) -> Augmentation | None:
        """The augmentation of a recipe, for blocks of this configuration; None where the recipe has none."""
        if not config.augment:
            return None
        return Augmentation(
            features=features,
            stretch=config.stretch,
            crop=config.crop,
            relief=config.relief,
            rugged=config.rugged,
            thinning=config.thinning,
            return_drop=config.return_drop,
            ground_window_m=blocks.ground_window_m,
            colour_drop=config.colour_drop,
            channel_drop=config.channel_drop,
        )

    def deform(self, block: Block) -> Block:
        """A part of a block, of other sizes and heights, with a little noise: positions, heights, extent together."""
        block = self._with_fewer_returns(self._thinned(self._cropped(block)))
        plane, upwards = _factor(_SCALE), _factor(self.stretch)
        factors = torch.tensor([plane, plane, upwards])
        position = torch.from_numpy(block.position) * factors
        position += _JITTER_M * torch.randn_like(position)
        deformed = replace(
            block,
            position=position.numpy(),
            height=block.height * upwards,
            extent=None if block.extent is None else block.extent * factors.double().numpy(),
        )
        if self.rugged and torch.rand(()).item() < self.rugged:
            return self._on_ground(deformed, rugged_relief(deformed.position[:, :2], deformed.height))
        if self.relief:
            xy = deformed.position[:, :2].astype(np.float64)
            return self._on_ground(deformed, random_relief(xy, self.relief))
        return deformed

    def _on_ground(self, block: Block, ground: np.ndarray) -> Block:
        """A block on ground of these heights (N,); the extent of its scan stays."""
        flat = block.position.astype(np.float64)
        raised = flat.copy()
        raised[:, 2] += ground
        # The block's own points say by how much heights grow: what they are counted from is the scan's, and not here.
        grown = self._heights(raised) - self._heights(flat)
        return replace(
            block,
            position=raised.astype(np.float32),
            height=np.maximum(block.height + grown, 0).astype(np.float32),
        )

    def _heights(self, position: np.ndarray) -> np.ndarray:
        """Of the points (N, 3), above the lowest of them nearby, (N,)."""
        lowest = lowest_points(position, self.ground_window_m)
        return height_above(position, self.ground_window_m, *lowest)

    def _cropped(self, block: Block) -> Block:
        """The points nearest to a labelled one as seen from above, at least one of them."""
        kept = math.ceil(len(block) * (1 - self.crop * torch.rand(()).item())) if self.crop else len(block)
        if kept == len(block) or block.label is None:
            return block
        labelled = np.flatnonzero(block.is_core & (block.label != IGNORE))
        middle = block.position[labelled[int(torch.randint(len(labelled), ()))], :2]
        distance = ((block.position[:, :2] - middle) ** 2).sum(axis=1)
        # In their old order, the core before the halo.
        return block[np.sort(np.argpartition(distance, kept - 1)[:kept])]

    def _thinned(self, block: Block) -> Block:
        """A share of the points drawn at random; all of them where no labelled point would be left."""
        if self.thinning == 1 or torch.rand(()).item() < 0.5:
            return block
        share = self.thinning ** -torch.rand(()).item()
        return _teaching(block, (torch.rand(len(block)) < share).numpy())

    def _with_fewer_returns(self, block: Block) -> Block:
        """The first and the last return of each pulse, or the first alone, numbered as if there were no more."""
        if not self.return_drop or torch.rand(()).item() >= self.return_drop:
            return block
        if not {"return_number", "number_of_returns"} <= block.attributes.keys():
            return block
        with_last = torch.rand(()).item() < 0.75  # the more frequent kind of scanner
        number, count = (block.attributes[name] for name in ("return_number", "number_of_returns"))
        fewer = np.minimum(count, 2 if with_last else 1)
        kept = (number <= 1) | (with_last & (number >= count))
        attributes = {"return_number": np.where(number <= 1, number, fewer), "number_of_returns": fewer}
        return _teaching(replace(block, attributes=block.attributes | attributes), kept)

    def turn(self, data: Data) -> Data:
        """A block's data turned about the vertical, mirrored, and with channels missing; `data` is left alone."""
        turned: Data = T.Compose([T.RandomRotate(180, axis=2), T.RandomFlip(0)])(data.clone())
        turned.extra = turned.extra * self._kept()
        return turned

    def _kept(self) -> Tensor:
        """(C - 3,) 1 where a channel stays, 0 where it is dropped."""
        kept = (torch.rand(num_channels(self.features) - 3) >= self.channel_drop).float()
        if "rgb" in self.features:
            before = num_channels(self.features[1 : self.features.index("rgb")])
            # Colours go together: two of three would be another colour, not none.
            kept[before : before + 3] = float(torch.rand(()) >= self.colour_drop)
        return kept


def _teaching(block: Block, kept: np.ndarray) -> Block:
    """The points that are kept, (N,) bool; the whole block where no labelled point of its core is among them."""
    if block.label is not None and not (kept & block.is_core & (block.label != IGNORE)).any():
        return block
    return block[np.flatnonzero(kept)]


def _factor(largest: float) -> float:
    """A random factor from 1 / largest to largest."""
    return math.exp(math.log(largest) * (2 * torch.rand(()).item() - 1))
