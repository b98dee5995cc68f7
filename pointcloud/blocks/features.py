"""From a block's attributes to the channels of the network, by name."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pointcloud.blocks.block import Block
from pointcloud.blocks.pyramid import surroundings_by_cells
from pointcloud.blocks.surroundings import ECHOES, SHAPE, echo_flags, shape, shape_and_echoes
from pointcloud.errors import PointloomError, ScanError, SchemaError
from pointcloud.grid.block_config import BlockConfig

RADII_M = {"0.5m": 0.5, "1m": 1.0, "2m": 2.0, "4m": 4.0, "8m": 8.0, "16m": 16.0, "32m": 32.0}
"""Of surroundings, as the names of features say them."""

SPARSE_M = 1.0
"""Distance between points from which a survey is sparse: less than one point per m²."""

_RETURNS = ("return_number", "number_of_returns")

FEATURES: dict[str, tuple[tuple[str, ...], int]] = {
    "xyz": ((), 3),
    "height": ((), 1),
    "intensity": (("intensity",), 1),
    "returns": (_RETURNS, 2),
    "rgb": (("red", "green", "blue"), 3),
    "room_xyz": ((), 3),
    **{f"shape_{radius}": ((), len(SHAPE)) for radius in RADII_M},
    **{f"echoes_{radius}": (_RETURNS, len(ECHOES)) for radius in RADII_M},
    **{f"pyramid_shape_{radius}": ((), len(SHAPE)) for radius in RADII_M},
    **{f"pyramid_echoes_{radius}": (_RETURNS, len(ECHOES)) for radius in RADII_M},
}
"""Feature -> (attributes it needs, channels it makes).

xyz: block-centred coordinates in units of half a tile. height: metres above the lowest point
nearby, standardised. intensity: standardised over the training split. returns: return number and number of
returns, standardised. rgb: [0, 1]. room_xyz: place in the scan, [0, 1] from its smallest to its largest
corner (the last three of the nine channels that S3DIS networks take since PointNet); augmentation, which
moves xyz, leaves it. shape_0.5m … shape_32m and echoes_0.5m … echoes_32m: what surrounds a point within so many
metres, among the points of its block (`pointcloud.blocks.surroundings`). pyramid_shape_0.5m … pyramid_echoes_32m: the
same from sums over cells, quicker by far where the radius is large (`pointcloud.blocks.pyramid`).
"""


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean and standard deviation of the standardised channels over the training split, by name."""

    mean: dict[str, float]
    std: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold."""
        return asdict(self)

    @staticmethod
    def from_moments(moments: Mapping[str, np.ndarray]) -> FeatureStatistics:
        """From the number, sum and sum of squares (3,) of each column."""
        mean, std = {}, {}
        for name, (number, total, squares) in moments.items():
            mean[name] = float(total / number)
            # A constant column has no spread to divide by; its standardised value is zero.
            std[name] = math.sqrt(max(float(squares / number) - mean[name] ** 2, 0.0)) or 1.0
        return FeatureStatistics(mean, std)

    @staticmethod
    def from_dict(record: dict[str, Any]) -> FeatureStatistics:
        """Read what `to_dict` has made.

        Raises:
            SchemaError: it is no such record.
        """
        try:
            return FeatureStatistics(dict(record["mean"]), dict(record["std"]))
        except (KeyError, TypeError, ValueError) as error:
            raise SchemaError(
                f"not feature statistics ({error!r}); expected mean and std by name."
            ) from error


STANDARDISED = ("height", "intensity", "return_number", "number_of_returns")


def check_features(features: tuple[str, ...]) -> None:
    """Raises PointloomError for an unknown feature, a repeated one, or a list that does not begin with xyz."""
    unknown = [name for name in features if name not in FEATURES]
    if unknown or len(set(features)) != len(features) or features[:1] != ("xyz",):
        raise PointloomError(
            f"features {', '.join(features)} cannot be used: expected xyz first, then any of "
            f"{', '.join(list(FEATURES)[1:])}, each once."
        )


def surroundings_for(spacing_m: float) -> tuple[str, ...]:
    """Features of the surroundings that suit scans whose points lie so far apart on the ground.

    Four radii of shape from about five distances up, a few points to hundreds, and the three smaller ones of echoes;
    for sparser scans the largest radii that there are.
    """
    radii = list(RADII_M)
    smallest = min(range(len(radii)), key=lambda i: abs(math.log(RADII_M[radii[i]] / (5 * spacing_m))))
    radii = radii[min(smallest, len(radii) - 4) :][:4]
    return *(f"shape_{radius}" for radius in radii), *(f"echoes_{radius}" for radius in radii[:3])


def survey_features(spacing_m: float) -> tuple[str, ...]:
    """All features that suit surveys of this density: xyz, returns, surroundings, and height where points are sparse.

    So far apart, the few points of a cylinder seldom tell how high above the ground a point lies; where they do, height
    with intensity misled (docs/benchmarks/accuracy.md).
    """
    height = ("height",) if spacing_m >= SPARSE_M else ()
    return "xyz", *height, "returns", *surroundings_for(spacing_m)


def is_airborne(attributes: Collection[str]) -> bool:
    """Whether scans with these attributes are taken to be airborne: they know their returns, as rooms do not."""
    return set(attributes).issuperset(_RETURNS)


def is_sparse(config: BlockConfig) -> bool:
    """Whether blocks so cut hold less than a point per m², seen from above."""
    return config.thin and config.voxel_size_m >= SPARSE_M


def default_features(config: BlockConfig, attributes: Collection[str]) -> tuple[str, ...]:
    """The features that won on held-out tiles (docs/benchmarks/accuracy.md), of those that the attributes allow.

    Surveys: `survey_features`, a voxel taken for the distance between points, as `pointcloud.quality.inspect` proposes
    it. Scans without returns: colours too, if there are any. Dense rooms, which are not thinned: xyz, colours and
    height.
    """
    wanted = survey_features(config.voxel_size_m) if config.thin else ("xyz", "height")
    given = [name for name in wanted if set(attributes).issuperset(FEATURES[name][0])]
    if "returns" not in given and set(attributes).issuperset(FEATURES["rgb"][0]):
        given.insert(1, "rgb")
    return tuple(given)


def num_channels(features: tuple[str, ...]) -> int:
    """How many channels the features have together."""
    return sum(FEATURES[name][1] for name in features)


def standardised_columns(block: Block) -> dict[str, np.ndarray]:
    """The columns of a block that statistics are kept of: name -> (N,), as they are stored."""
    return {"height": block.height} | {
        name: block.attributes[name] for name in STANDARDISED if name in block.attributes
    }


def point_features(block: Block, features: tuple[str, ...], statistics: FeatureStatistics) -> np.ndarray:
    """All channels but xyz, (N, C - 3) float32; xyz is made last, because augmentation moves it.

    Raises:
        ScanError: the scan lacks an attribute that a feature needs, or its extent is not known.
    """
    columns: list[np.ndarray] = []
    around = _surroundings(block, features)
    for feature in features[1:]:
        missing = [name for name in FEATURES[feature][0] if name not in block.attributes]
        if missing:
            raise ScanError(
                f"scan {block.scan!r} has no {', '.join(missing)}, which the feature {feature!r} needs; use a "
                "checkpoint or feature list without it."
            )
        if feature == "rgb":
            columns += [block.attributes[name] / np.float32(65535) for name in FEATURES[feature][0]]
            continue
        if feature == "room_xyz":
            columns += list(_place_in_scan(block).T)
            continue
        if feature in around:
            columns += list(around[feature].T)
            continue
        names = ("height",) if feature == "height" else FEATURES[feature][0]
        values = standardised_columns(block)
        columns += [
            (values[name].astype(np.float64) - statistics.mean[name]) / statistics.std[name] for name in names
        ]
    return np.stack(columns, axis=1).astype(np.float32) if columns else np.empty((len(block), 0), np.float32)


def _surroundings(block: Block, features: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The wanted shapes and echoes, those of one radius in one go; of what the block has the attributes for."""
    channels: dict[str, np.ndarray] = {}
    returns = [block.attributes[name] for name in _RETURNS if name in block.attributes]
    for name, radius in RADII_M.items():
        shape_name, echoes_name = f"shape_{name}", f"echoes_{name}"
        if echoes_name in features and len(returns) == len(_RETURNS):
            both = shape_and_echoes(block.position, returns[0], returns[1], radius)
            channels[shape_name], channels[echoes_name] = both
        elif shape_name in features:
            channels[shape_name] = shape(block.position, radius)
        shape_name, echoes_name = f"pyramid_{shape_name}", f"pyramid_{echoes_name}"
        flags = None
        if echoes_name in features and len(returns) == len(_RETURNS):
            flags = echo_flags(returns[0], returns[1])
        if flags is not None or shape_name in features:
            channels[shape_name], echoes = surroundings_by_cells(block.position, flags, radius)
            if flags is not None:
                channels[echoes_name] = echoes
    return channels


def _place_in_scan(block: Block) -> np.ndarray:
    """(N, 3) float64 in [0, 1]: where each point lies in the box around its scan; 0 along a flat side."""
    if block.extent is None:
        raise ScanError(
            f"scan {block.scan!r} does not say its extent, which the feature 'room_xyz' needs; run the "
            "preprocess flow again."
        )
    low, high = block.extent
    size = high - low
    # Positions are float32: a point in the corner may lie slightly outside.
    return ((block.position - low) / np.where(size > 0, size, 1.0)).clip(0.0, 1.0)
