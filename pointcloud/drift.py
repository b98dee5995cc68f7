"""What a training has seen of scans, and what of another scan is unlike it: density, heights, intensities, colours.

A network answers for any input. Where a scan is thinner than all that it was trained on, or its intensities are on
another scale, the answers are guesses, and no confidence says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pointcloud.blocks import Block
from pointcloud.columns import COLOURS
from pointcloud.errors import SchemaError
from pointcloud.features import FEATURES, standardised_columns

_DRAWN = 64
"""Values of each column taken from a block, evenly spread over its points."""
_BLOCKS_KEPT = 4096
_MARGIN = 0.25  # of the range that training saw: a little beyond it is not unknown
_SHARE_OUTSIDE = 0.2
_DENSITY_FACTOR = 2.0
_FLAT = 0.1  # a scan whose values spread over less of the range than this has lost them
_FEET = (9.0, 12.5)  # 1 / 0.3048² = 10.8: what feet taken for metres do to a density


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
    """

    density: Range
    columns: dict[str, Range]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Seen:
        """Raises SchemaError for a record that is none."""
        try:
            columns = {str(name): Range(**values) for name, values in record["columns"].items()}
            return Seen(Range(**record["density"]), columns)
        except (KeyError, TypeError, AttributeError) as error:
            raise SchemaError(f"not a record of what training saw ({error!r}).") from error


class Sampler:
    """Looks at blocks as they come and keeps a few values of each, however many there are."""

    def __init__(self, tile_size_m: float) -> None:
        # Fine enough that an edge of a survey does not count as thin, coarse enough for a few points per m².
        self._cell_m = tile_size_m / 8
        self._densities: list[float] = []
        self._values: list[dict[str, np.ndarray]] = []
        self._stride, self._num_blocks = 1, 0

    def take(self, block: Block) -> None:
        """Look at the core points of one block."""
        self._num_blocks += 1
        if self._num_blocks % self._stride:
            return
        core = np.flatnonzero(block.is_core)
        if not len(core):
            return
        cells = np.unique(np.floor(block.position[core, :2] / self._cell_m).astype(np.int64), axis=0)
        self._densities.append(len(core) / (len(cells) * self._cell_m**2))
        columns = standardised_columns(block)
        columns |= {name: block.attributes[name] for name in COLOURS if name in block.attributes}
        drawn = core[np.linspace(0, len(core) - 1, min(_DRAWN, len(core))).astype(np.int64)]
        self._values.append({name: values[drawn] for name, values in columns.items()})
        if len(self._values) > _BLOCKS_KEPT:
            # Every second one from here on, and of those so far.
            self._stride *= 2
            del self._densities[::2], self._values[::2]

    def seen(self) -> Seen | None:
        """What the blocks look like; None when there was none."""
        if not self._values:
            return None
        names = set.intersection(*(set(values) for values in self._values))
        values = {name: np.concatenate([v[name] for v in self._values]) for name in sorted(names)}
        return Seen(_range(np.array(self._densities)), {name: _range(v) for name, v in values.items()})

    def drift(self, training: Seen, features: tuple[str, ...]) -> list[str]:
        """What is unlike the training, a sentence each, of what these features are made from; empty when nothing is."""
        here = self.seen()
        if here is None:
            return []
        needed = {"height": "height"} | {a: f for f in features for a in FEATURES[f][0]}
        if "height" not in features:
            del needed["height"]
        found = [said for said in [_density_drift(training.density, here.density)] if said]
        for name in sorted(needed.keys() & training.columns.keys() & here.columns.keys()):
            values = np.concatenate([v[name] for v in self._values])
            said = _column_drift(name, training.columns[name], here.columns[name], values)
            found += [said] if said else []
        return found


def seen_in(blocks: Iterable[Block], tile_size_m: float) -> Seen | None:
    """What blocks look like, as a training keeps it for those who segment; None when there was none."""
    sampler = Sampler(tile_size_m)
    for block in blocks:
        sampler.take(block)
    return sampler.seen()


def _range(values: np.ndarray) -> Range:
    return Range(*(float(v) for v in np.percentile(values.astype(np.float64), (1, 50, 99))))


def _density_drift(training: Range, here: Range) -> str | None:
    least, most = training.low / _DENSITY_FACTOR, training.high * _DENSITY_FACTOR
    if least <= here.middle <= most:
        return None
    ratio = max(here.middle, 1e-9) / training.middle
    feet = " feet taken for metres do that, check the unit of its CRS;" if _is_feet(ratio) else ""
    return (
        f"It has {here.middle:.3g} points per m² after thinning, the training saw {training.low:.3g} to "
        f"{training.high:.3g};{feet} a checkpoint trained on such scans labels it better."
    )


def _is_feet(ratio: float) -> bool:
    return _FEET[0] < ratio < _FEET[1] or _FEET[0] < 1 / ratio < _FEET[1]


def _column_drift(name: str, training: Range, here: Range, values: np.ndarray) -> str | None:
    what = name.replace("_", " ")
    spread = training.high - training.low
    # The returns of a pulse are few whole numbers: their range is no margin to speak of.
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
