"""The rows of the papers' ablation tables: one change each to a reference network.

Sources: the ICCV paper's table 1 (dilation, stochastic dilation, fixed graph, connections, k, depth, width) and the
TPAMI paper's operators, see `models.network.configurations`. With the paper's reference, ResGCN-28, the rows are
theirs; `no-fusion` is an addition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from models.network.configurations import DeepGCNConfig, LayerKind
from pointcloud.errors import PointloomError


@dataclass(frozen=True)
class Row:
    """One training of the table.

    Attributes:
        name: to choose it by.
        group: group of rows that it is compared with.
        about: what is changed, in words.
        change: the reference network -> this row's.
    """

    name: str
    group: str
    about: str
    change: Callable[[DeepGCNConfig], DeepGCNConfig]


def _set(**values: Any) -> Callable[[DeepGCNConfig], DeepGCNConfig]:
    return lambda base: replace(base, **values)


def _depth(
    layer: LayerKind, num_layers: int, k: int | None = None
) -> Callable[[DeepGCNConfig], DeepGCNConfig]:
    """Of this depth with the papers' dilations; k at most that given, as theirs had to be for memory."""
    return lambda base: replace(
        base, layer=layer, num_layers=num_layers, dilations=None, k=base.k if k is None else min(base.k, k)
    )


def _undilated(base: DeepGCNConfig) -> DeepGCNConfig:
    return replace(base, dilations=(1,) * (base.num_layers - 1), stochastic_epsilon=0.0)


def _dilated_plain(base: DeepGCNConfig) -> DeepGCNConfig:
    # PlainGCN as the papers name it has no dilation at all; this row tells the two apart.
    return replace(base, layer="plain", dilations=tuple(range(1, base.num_layers)))


_ROWS = (
    Row("reference", "reference", "the reference network", _set()),
    Row("not-stochastic", "dilation", "dilated, never at random", _set(stochastic_epsilon=0.0)),
    Row("not-dilated", "dilation", "every dilation 1", _undilated),
    Row("fixed-graph", "graph", "one graph, of the coordinates", lambda base: replace(base, dynamic=False)),
    Row("fixed-not-dilated", "graph", "one graph, every dilation 1",
        lambda base: replace(_undilated(base), dynamic=False)),
    Row("fixed-plain", "graph", "one graph, plain layers", _set(layer="plain", dilations=None, dynamic=False)),
    Row("plain", "layers", "plain layers, every dilation 1", _set(layer="plain", dilations=None)),
    Row("plain-dilated", "layers", "plain layers, dilated", _dilated_plain),
    Row("dense", "layers", "dense layers, half the width and k",
        lambda base: replace(base, layer="dense", channels=max(base.channels // 2, 1), k=max(base.k // 2, 1))),
    Row("k-4", "k", "4 neighbours", _set(k=4)),
    Row("k-8", "k", "8 neighbours", _set(k=8)),
    Row("k-16", "k", "16 neighbours", _set(k=16)),
    Row("residual-7", "depth", "7 residual layers", _depth("residual", 7)),
    Row("residual-14", "depth", "14 residual layers", _depth("residual", 14)),
    Row("residual-28", "depth", "28 residual layers", _depth("residual", 28)),
    Row("plain-7", "depth", "7 plain layers", _depth("plain", 7)),
    Row("plain-14", "depth", "14 plain layers", _depth("plain", 14)),
    Row("plain-28", "depth", "28 plain layers", _depth("plain", 28)),
    Row("residual-56", "deeper", "56 residual layers, k at most 8", _depth("residual", 56, 8)),
    Row("residual-112", "deeper", "112 residual layers, k at most 4", _depth("residual", 112, 4)),
    Row("width-16", "width", "16 channels", _set(channels=16)),
    Row("width-32", "width", "32 channels", _set(channels=32)),
    Row("width-64", "width", "64 channels", _set(channels=64)),
    Row("width-128", "width", "128 channels, k at most 8",
        lambda base: replace(base, channels=128, k=min(base.k, 8))),
    Row("no-fusion", "fusion", "no fused vector of the block", _set(fusion_channels=0)),
    Row("mr", "operator", "MRConv", _set(convolution="mr")),
    Row("sage", "operator", "GraphSAGE", _set(convolution="sage")),
    Row("gin", "operator", "GIN", _set(convolution="gin")),
)  # fmt: skip
ROWS: dict[str, Row] = {row.name: row for row in _ROWS}
"""By name, in the order of the table. Rows that describe one network for a given reference are trained once."""


def choose_rows(names: Sequence[str]) -> list[Row]:
    """The rows of these names, in the order of the table; all of them where none is named.

    Raises:
        PointloomError: an unknown row.
    """
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise PointloomError(f"there is no row {unknown[0]!r}; expected some of {', '.join(ROWS)}.")
    return [row for row in _ROWS if not names or row.name in names]


def first_row_of(network: DeepGCNConfig, base: DeepGCNConfig) -> str:
    """Name of the first row of the whole table that describes this network, whichever rows are chosen."""
    return next(row.name for row in _ROWS if row.change(base) == network)
