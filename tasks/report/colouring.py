"""Colours and words of the small codes that every picture on the page is made of.

A picture holds one uint8 code per cell or point. A `Colouring` says what each code looks like and what it is
called, so the map from above, the 3-D view, the legends and the words under the pointer cannot disagree.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

import numpy as np
from plotly.colors import sample_colorscale, sequential

from pointcloud.labels import IGNORE, LabelScheme

EMPTY = 0
"""Code of a cell without any point."""
UNKNOWN = 1
"""Code of what is there but has no class, no truth or no confidence."""
FIRST = 2
"""Code of the first class, and of the lowest share."""

_CLEAR = "rgba(0,0,0,0)"
_GREY = "#868e96"
_RIGHT, _WRONG = "#8fabbf", "#d1361f"
# On a map this colour covers most of the ground, so it is transparent, for light and dark pages.
_CALM = "rgba(125,157,181,0.4)"
# 0 has no strong colour, so that a single wrong point in a cell stands out.
_ERROR_RAMP = ["#f0b429", "#e8702a", "#c81e3a", "#7a0f3d"]
_COLOUR = re.compile(r"#(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})")


@dataclass(frozen=True)
class Colouring:
    """What the codes 0 … K - 1 look like.

    Attributes:
        colours: K CSS colours.
        names: K words, shown under the pointer, as plain text.
        swatches: (colour, name) pairs for the legend.
        ramp: colours of a continuous scale from `ends[0]` to `ends[1]`; empty where there is none.
    """

    colours: tuple[str, ...]
    names: tuple[str, ...]
    swatches: tuple[tuple[str, str], ...]
    ramp: tuple[str, ...] = ()
    ends: tuple[str, str] = ("", "")

    def scale(self) -> list[tuple[float, str]]:
        """Plotly colour scale with one flat step per code, for values from -0.5 to K - 0.5."""
        count = len(self.colours)
        return [(edge / count, c) for i, c in enumerate(self.colours) for edge in (i, i + 1)]

    def hover_names(self) -> list[str]:
        """`names` escaped: Plotly reads a subset of HTML, links included, in the words under the pointer."""
        return [html.escape(name, quote=False) for name in self.names]


def safe_colour(colour: str) -> str:
    """The colour if it is #rgb or #rrggbb, else grey: it is written into style attributes."""
    return colour if _COLOUR.fullmatch(colour) else _GREY


def of_classes(scheme: LabelScheme, unknown: str) -> Colouring:
    """Colouring of `class_codes`; `unknown` says what no class means there."""
    colours = tuple(map(safe_colour, scheme.colours))
    return Colouring(
        (_CLEAR, _GREY, *colours),
        ("no point", unknown, *scheme.names),
        (*zip(colours, scheme.names, strict=True), (_GREY, unknown)),
    )


def class_codes(indices: np.ndarray) -> np.ndarray:
    """(P,) uint8 codes of class indices (P,)."""
    return (indices.astype(np.int16) + FIRST).clip(UNKNOWN).astype(np.uint8)


def of_outcomes() -> Colouring:
    """Colouring of `outcome_codes`."""
    named = ((_RIGHT, "as the truth"), (_WRONG, "differs from the truth"), (_GREY, "not scored"))
    return Colouring(
        (_CLEAR, _GREY, _RIGHT, _WRONG), ("no point", "not scored", named[0][1], named[1][1]), named
    )


def outcome_codes(after: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(P,) uint8: not scored, as the truth, or different from it (no class given is different)."""
    return np.where(truth == IGNORE, UNKNOWN, np.where(after == truth, FIRST, FIRST + 1)).astype(np.uint8)


def of_error_shares() -> Colouring:
    """Colouring of `share_codes` where a share is that of scored points labelled wrongly."""
    ramp = [_CALM, *sample_colorscale(_ERROR_RAMP, 100)]
    names = (f"{percent} % of the scored points differ" for percent in range(101))
    return Colouring(
        (_CLEAR, _GREY, *ramp),
        ("no point", "not scored", *names),
        ((_CALM, "as the truth"), (_GREY, "not scored")),
        tuple(_ERROR_RAMP),
        ("1 %", "100 % differ"),
    )


def of_confidence() -> Colouring:
    """Colouring of `share_codes` where a share is a confidence."""
    # Reversed: the user looks for doubtful places, so these are bright.
    ramp = sample_colorscale(sequential.Cividis[::-1], 101)
    return Colouring(
        (_CLEAR, _GREY, *ramp),
        ("no point", "no confidence", *(f"confidence {percent} %" for percent in range(101))),
        ((_GREY, "no confidence"),),
        tuple(sequential.Cividis[::-1]),
        ("0 %", "100 % confident"),
    )


def share_codes(shares: np.ndarray) -> np.ndarray:
    """uint8 codes of shares in [0, 1], in whole per cent; NaN is `UNKNOWN`, a share above 0 at least 1 %."""
    percent = np.where(shares > 0, np.maximum(np.rint(np.nan_to_num(shares) * 100), 1), 0)
    return np.where(np.isnan(shares), UNKNOWN, percent + FIRST).astype(np.uint8)


def of_heights(z: np.ndarray, unit: str) -> Colouring:
    """Colouring of `height_codes` of the same z."""
    low, high = (float(z.min()), float(z.max())) if len(z) else (0.0, 0.0)
    names = (f"z {low + (high - low) * step / 100:,.2f} {unit}" for step in range(101))
    ramp = sample_colorscale(sequential.Viridis, 101)
    ends = (f"{low:,.1f}", f"{high:,.1f} {unit}")
    return Colouring((_CLEAR, _GREY, *ramp), ("no point", "–", *names), (), tuple(sequential.Viridis), ends)


def height_codes(z: np.ndarray) -> np.ndarray:
    """(P,) uint8: the height in hundredths of the range from the lowest to the highest point."""
    spread = np.ptp(z) if len(z) else 0.0
    return share_codes((z - z.min()) / spread if spread > 0 else np.zeros(len(z)))
