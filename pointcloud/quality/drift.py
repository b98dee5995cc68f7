"""What a training has seen of scans, and what of another scan is unlike it: density, heights, intensities, colours.

A network labels any input. Where a scan is sparser than all scans of the training, or its intensities are on another
scale, the labels are guesses, and the confidence does not show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pointcloud.blocks.block import Block
from pointcloud.blocks.features import FEATURES, standardised_columns
from pointcloud.errors import SchemaError
from pointcloud.formats.columns import COLOURS
from pointcloud.quality.wrong_units import is_foot_apart, likely_unit
from pointcloud.storage import ledger

_DRAWN = 64
"""Values of each column taken from a block, evenly spread over its points: 1st and 99th percentile of 4096 blocks then
come from 262,144 values, of which each tail has 2,600."""
_BLOCKS_KEPT = 4096
"""Blocks whose values are kept; of more, every second one. It bounds memory to some 10 MB."""

# These limits are choices: a warning should come for a scan of another sensor or unit, and not for another place of the
# same survey. tests/pointcloud/quality/test_drift.py holds both.
_MARGIN = 0.25
"""Share of the range that training saw by which values may lie outside of it."""
_SHARE_OUTSIDE = 0.2
"""Share of a scan's values that may lie outside of range and margin."""
_DENSITY_FACTOR = 2.0
"""Density may be so many times less or more than the range that training saw; twice is one overlapping flight strip."""
_UNLIKE = 0.5
"""Share of a scan's tiles that may be unlike the training to the network."""
_FLAT = 0.1
"""Values that spread over a smaller share of the training's range were probably never filled."""
_FEW = 4
"""Points that a cell of the ground holds on average at least: with fewer, empty cells make a scan look denser."""
_STAGE = "preprocess"
_DELIVERED = "points per m² as delivered"


@dataclass(frozen=True)
class Range:
    """The 1st, 50th and 99th percentile."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Seen:
    """What blocks look like.

    Attributes:
        density: points kept per m² of ground that has any, over blocks.
        columns: name -> values of its points; height in metres, the others as in the cloud.
        delivered: points per m² before thinning, which hides how far apart they were, over points; None where it
            is not known, as in checkpoints from before.
    """

    density: Range
    columns: dict[str, Range]
    delivered: Range | None = None

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold."""
        return asdict(self)

    def in_words(self) -> dict[str, Range]:
        """What a person calls each -> its range."""
        delivered = {} if self.delivered is None else {_DELIVERED: self.delivered}
        columns = {_words(name): self.columns[name] for name in sorted(self.columns)}
        return delivered | {"points per m² after thinning": self.density} | columns

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Seen:
        """Raises SchemaError for a record that `to_dict` has not made."""
        try:
            columns = {str(name): Range(**values) for name, values in record["columns"].items()}
            delivered = record.get("delivered")
            return Seen(
                Range(**record["density"]), columns, None if delivered is None else Range(**delivered)
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise SchemaError(f"not a record of what training saw ({error!r}).") from error


class Sampler:
    """Takes blocks one after the other and keeps a few values of each, in bounded memory.

    Attributes:
        num_kept: core points of the unshifted blocks so far that are of the blocks' own scans.
    """

    def __init__(self, tile_size_m: float) -> None:
        self._tile_m = tile_size_m
        self._densities: list[float] = []
        self._on_ground: list[tuple[str, int, float]] = []
        self._values: list[dict[str, np.ndarray]] = []
        self._stride, self._num_blocks, self.num_kept = 1, 0, 0

    def add(self, block: Block) -> None:
        """Add the core points of one block."""
        core = np.flatnonzero(block.is_core)
        if block.shift == (0, 0):
            self.num_kept += _num_own(block, core)
        self._num_blocks += 1
        if self._num_blocks % self._stride or not len(core):
            return
        # Fine enough that an edge of a survey does not count as thin, coarse enough for a few points per m².
        self._densities.append(_per_m2(block, core, self._tile_m / 8))
        self._on_ground.append((block.scan, len(core), self._per_m2_of_ground(block, core)))
        columns = standardised_columns(block)
        columns |= {name: block.attributes[name] for name in COLOURS if name in block.attributes}
        drawn = core[np.linspace(0, len(core) - 1, min(_DRAWN, len(core))).astype(np.int64)]
        self._values.append({name: values[drawn] for name, values in columns.items()})
        if len(self._values) > _BLOCKS_KEPT:
            # Every second one from here on, and of those so far.
            self._stride *= 2
            del self._densities[::2], self._on_ground[::2], self._values[::2]

    def _per_m2_of_ground(self, block: Block, core: np.ndarray) -> float:
        """Core points per m², in cells so large that most of them hold `_FEW` points or more, also in sparse scans."""
        for divisions in (8, 4, 2, 1):
            # Positions count from the middle of a tile.
            density = _per_m2(block, core, self._tile_m / divisions, self._tile_m / 2)
            if density * (self._tile_m / divisions) ** 2 >= _FEW:
                break
        return density

    def seen(self, thinning: Mapping[str, float] | None = None) -> Seen | None:
        """What the blocks look like; None when there was none.

        Args:
            thinning: scan -> points decoded for each that was kept.
        """
        if not self._values:
            return None
        names = set.intersection(*(set(values) for values in self._values))
        values = {name: np.concatenate([v[name] for v in self._values]) for name in sorted(names)}
        return Seen(
            _range(np.array(self._densities)),
            {name: _range(v) for name, v in values.items()},
            self._delivered(thinning or {}),
        )

    def _delivered(self, thinning: Mapping[str, float]) -> Range | None:
        known = [(thinning[scan], *rest) for scan, *rest in self._on_ground if scan in thinning]
        if not known:
            return None
        factor, points, kept = np.array(known, np.float64).T
        # A small scan is mostly edges: its points say more than its blocks.
        return _range(factor * kept, factor * points)

    def drift(
        self,
        training: Seen,
        features: tuple[str, ...],
        thinning: Mapping[str, float] | None = None,
        units: tuple[float, float] = (1.0, 1.0),
    ) -> list[str]:
        """What is unlike the training, a sentence each, of what these features are made from; empty when nothing is.

        Args:
            features: of the network.
            thinning: as for `seen`.
            units: metres of a horizontal and a vertical unit of the scan's CRS.
        """
        here = self.seen(thinning)
        if here is None:
            return []
        needed = {"height": "height"} | {a: f for f in features for a in FEATURES[f][0]}
        if "height" not in features:
            del needed["height"]
        sentences = [_unit_drift(training, here, units), _density_drift(training, here, units)]
        for name in sorted(needed.keys() & training.columns.keys() & here.columns.keys()):
            values = np.concatenate([v[name] for v in self._values])
            sentences.append(_column_drift(name, training.columns[name], here.columns[name], values))
        return [sentence for sentence in sentences if sentence]


def seen_in(blocks: Iterable[Block], tile_size_m: float, dataset: str) -> Seen | None:
    """What blocks look like, as a training keeps it for those who segment; None when there was none.

    Args:
        blocks: those of a dataset that train.
        dataset: whose ledger tells how many points each of its scans was delivered with.

    Raises:
        StorageError: the ledger cannot be listed.
    """
    sampler = Sampler(tile_size_m)
    for block in blocks:
        sampler.add(block)
    records = ledger.read_all(dataset, _STAGE)
    return sampler.seen({r.scan: r.points_in / r.points_out for r in records.values() if r.points_out})


def unlike_tiles(share: float) -> list[str]:
    """A sentence on the share of a scan's tiles that the network finds unlike its training, or none."""
    if share <= _UNLIKE:
        return []
    return [
        f"{share:.0%} of its tiles are unlike what the network was trained on, by its own last features; look at its "
        "labels before they are used, or train with such scans."
    ]


def _num_own(block: Block, core: np.ndarray) -> int:
    if block.source is None:
        return len(core)
    return int(np.count_nonzero(block.source[core] == block.scans.index(block.scan)))


def _per_m2(block: Block, core: np.ndarray, cell_m: float, corner_m: float = 0.0) -> float:
    """Core points per m² of the cells that have any; one begins so far before the origin."""
    cells = np.unique(np.floor((block.position[core, :2] + corner_m) / cell_m).astype(np.int64), axis=0)
    return len(core) / (len(cells) * cell_m**2)


def _range(values: np.ndarray, weights: np.ndarray | None = None) -> Range:
    if weights is None:
        return Range(*(float(v) for v in np.percentile(values.astype(np.float64), (1, 50, 99))))
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    at = np.searchsorted(reached, (0.01, 0.5, 0.99)).clip(0, len(order) - 1)
    return Range(*values[order][at].tolist())


def _spacing(training: Seen, here: Seen) -> float | None:
    """How far apart points were delivered, over how far those of the training were."""
    if training.delivered is None or here.delivered is None:
        return None
    return float(np.sqrt(training.delivered.middle / max(here.delivered.middle, 1e-9)))


def _unit_drift(training: Seen, here: Seen, units: tuple[float, float]) -> str | None:
    known = training.columns.get("height"), here.columns.get("height")
    if known[0] is None or known[1] is None or min(known[0].middle, known[0].high) <= 0:
        return None
    heights = known[1].middle / known[0].middle, known[1].high / known[0].high
    spacing = _spacing(training, here)
    likely = likely_unit(spacing, heights, units)
    if likely is None:
        return None
    what, vertical = likely
    if vertical:
        return (
            f"Its heights are {heights[1]:.2g} times those that the training saw, its distances along the ground are "
            f"not: likely {what} in heights alone; check the vertical unit of its CRS."
        )
    return (
        f"Its points lie {spacing:.2g} times as far apart as those that the training saw, and its heights are "
        f"{heights[1]:.2g} times theirs: likely {what}; check the unit of its CRS."
    )


def _density_drift(training: Seen, here: Seen, units: tuple[float, float]) -> str | None:
    seen = training.density
    if seen.low / _DENSITY_FACTOR <= here.density.middle <= seen.high * _DENSITY_FACTOR:
        return None
    # Thinning makes densities similar: the distance between the delivered points is used where it is known.
    spacing = _spacing(training, here) or float(np.sqrt(seen.middle / max(here.density.middle, 1e-9)))
    feet = " a wrong unit does that too, check that of its CRS;" if is_foot_apart(spacing, units) else ""
    return (
        f"It has {here.density.middle:.3g} points per m² after thinning, the training saw {seen.low:.3g} to "
        f"{seen.high:.3g};{feet} a checkpoint trained on such scans labels it better."
    )


def _words(name: str) -> str:
    return "height above the lowest point nearby, m" if name == "height" else name.replace("_", " ")


def _column_drift(name: str, training: Range, here: Range, values: np.ndarray) -> str | None:
    what = "height" if name == "height" else _words(name)
    spread = training.high - training.low
    # The returns of a pulse are small whole numbers: a share of their range is no useful margin.
    margin = max(_MARGIN * spread, 1.0)
    outside = float(((values < training.low - margin) | (values > training.high + margin)).mean())
    seen = f"the training saw {training.low:.4g} to {training.high:.4g}"
    if outside > _SHARE_OUTSIDE:
        return (
            f"{outside:.0%} of its values of {what} are outside what is known, from {here.low:.4g} to {here.high:.4g}; "
            f"{seen}: check their scale and unit."
        )
    # Flat ground has no heights, and a scan may have single returns alone; light is never constant.
    if name in ("intensity", *COLOURS) and spread > 0 and here.high - here.low < _FLAT * spread:
        return (
            f"Its {what} hardly varies, from {here.low:.4g} to {here.high:.4g}; {seen}: it may not be filled."
        )
    return None
