"""From the columns of PLY, NumPy and E57 files, whose names and types vary, to the columns of a cloud.

Names: small and capital letters are the same, as are names with and without underscores, and the prefix `scalar_` of
CloudCompare is left out. Types:

- coordinates become float64;
- colours in 8 bits are multiplied by 257, as LAS wants 16; in 16 bits they stay; floats of which none exceeds 1
  over the whole scan are multiplied by 65535; any others are rounded and taken as they are;
- intensity in 8 or 16 bits stays; anything else is multiplied by 65535 where its range over the whole scan is at
  most 1, halved until it fits where it is more than 65535, moved to 0 where it begins below, and rounded;
- a class code of -1 or NaN, which means no class, becomes 255; any other must be a whole number from 0 to 255;
- counts of returns are rounded and kept within 0 to 255.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import numpy as np

from pointcloud.cloud import ATTRIBUTES, Columns
from pointcloud.errors import ScanError

Table = dict[str, np.ndarray]
"""Some points: one of `NAMES` -> (n,) array of any number type."""
Ranges = dict[str, tuple[float, float]]

AXES = ("x", "y", "z")
COLOURS = ("red", "green", "blue")
RETURNS = ("return_number", "number_of_returns")
MAY_BE_UNFILLED = (*COLOURS, *RETURNS)
"""Attributes that a file may have room for without having them: 0 in every point."""
NAMES: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in (*AXES, "number_of_returns")},
    "intensity": ("intensity", "reflectance", "strength"),
    "return_number": ("return_number", "return"),
    "red": ("red", "r", "diffuse_red"),
    "green": ("green", "g", "diffuse_green"),
    "blue": ("blue", "b", "diffuse_blue"),
    "classification": ("classification", "class", "label", "labels", "segment"),
}
"""Axis or attribute -> the names it has in the wild; of several in one file the first here is used."""
_WHOLE_WORDS = {name.replace("_", ""): name for names in NAMES.values() for name in names if "_" in name}
"""The names with underscores as PDAL writes them."""

NO_CLASS = 255
"""The class code of a point that a file says has none; the presets of label schemes do not use it."""
_COARSE_M = 0.002  # coordinates rounded to more than this get a note


def plain_name(name: str) -> str:
    """What a file's name is compared by: in small letters, without CloudCompare's prefix."""
    return name.lower().removeprefix("scalar_")


def match_names(names: Collection[str]) -> dict[str, str]:
    """Which of a file's names stands for which axis or attribute: axis or attribute -> the file's name.

    Colours are matched only if all three are there.
    """
    at: dict[str, str] = {}
    for name in names:
        at.setdefault(plain_name(name), name)
    for name in names:
        at.setdefault(_WHOLE_WORDS.get(plain_name(name), name), name)
    matched = {ours: next((at[n] for n in theirs if n in at), "") for ours, theirs in NAMES.items()}
    whole = all(matched[name] for name in COLOURS)
    return {ours: name for ours, name in matched.items() if name and (whole or ours not in COLOURS)}


def attributes_of(names: Iterable[str]) -> tuple[str, ...]:
    """Those of `cloud.ATTRIBUTES` among some names, in their order there."""
    present = set(names)
    return tuple(name for name in ATTRIBUTES if name in present)


def num_wrong_returns(attributes: Mapping[str, np.ndarray]) -> int:
    """How many points have a return number or a number of returns of 0, or a return number above that number."""
    if not attributes.keys() >= set(RETURNS):
        return 0
    number, of = (attributes[name] for name in RETURNS)
    return int(np.count_nonzero((number == 0) | (number > of)))


def iterate_columns(
    tables: Callable[[], Iterator[Table]], types: dict[str, np.dtype], report: Callable[[str], None]
) -> Iterator[Columns]:
    """Convert tables, chunk by chunk; those whose conversion depends on the whole scan are read twice.

    Args:
        tables: gives the scan's tables from the beginning, every time it is called.
        types: the type of each column.
        report: called with one sentence on what is changed on the way.

    Raises:
        ScanError: colours or class codes that cannot be such.
    """
    ranges = _ranges(tables, [n for n in (*COLOURS, "intensity") if n in types and not _is_small(types[n])])
    largest, coarse = 0.0, types["x"].kind == "f" and types["x"].itemsize < 8
    if "intensity" in ranges:
        low, factor = _stretch(*ranges["intensity"])
        if (low, factor) != (0, 1):
            report(f"its intensities begin at {low:g} and are multiplied by {factor:g}, to be 16 bits.")
    for table in tables():
        xyz = np.stack([table[axis] for axis in AXES], axis=1).astype(np.float64)
        if coarse and len(xyz):
            largest = max(largest, float(np.nanmax(np.abs(xyz[:, :2]), initial=0)))
        yield xyz, {name: _CONVERSIONS[name](table[name], ranges, name) for name in attributes_of(types)}
    step = float(np.spacing(np.array(largest, types["x"]))) if coarse and np.isfinite(largest) else 0.0
    if step > _COARSE_M:
        report(
            f"its coordinates are {8 * types['x'].itemsize}-bit floats up to {largest:,.0f}, which rounds them to "
            f"{step:g}; store them as doubles."
        )


def _is_small(kind: np.dtype) -> bool:
    return kind.kind == "u" and kind.itemsize <= 2


def _ranges(tables: Callable[[], Iterator[Table]], names: list[str]) -> Ranges:
    """Lowest and highest value over the whole scan of some columns; NaN and infinity are left out."""
    ranges = dict.fromkeys(names, (np.inf, -np.inf))
    for table in tables() if names else ():
        for name, (low, high) in ranges.items():
            values = table[name][np.isfinite(table[name])]
            if len(values):
                ranges[name] = (min(low, float(values.min())), max(high, float(values.max())))
    return {name: (low, high) if low <= high else (0.0, 0.0) for name, (low, high) in ranges.items()}


def _stretch(low: float, high: float) -> tuple[float, float]:
    """The value that is subtracted from intensities and the factor after it: the same for scans of the same range."""
    low = min(low, 0.0)
    if high <= low:
        return low, 1.0
    if high - low <= 1:
        return low, 65535.0
    return low, 2.0 ** -max(0, int(np.ceil(np.log2((high - low) / 65535))))


def _to_intensity(values: np.ndarray, ranges: Ranges, name: str) -> np.ndarray:
    if _is_small(values.dtype):
        return values.astype(np.uint16)
    low, factor = _stretch(*ranges[name])
    stretched = (np.nan_to_num(values.astype(np.float64), nan=low, posinf=low, neginf=low) - low) * factor
    return np.rint(stretched).astype(np.uint16)


def _to_colour(values: np.ndarray, ranges: Ranges, name: str) -> np.ndarray:
    if _is_small(values.dtype):
        return values.astype(np.uint16) * np.uint16(257 if values.dtype.itemsize == 1 else 1)
    lows, highs = zip(*(ranges[colour] for colour in COLOURS if colour in ranges), strict=True)
    if min(lows) < 0 or max(highs) > 65535:
        raise ScanError(
            f"its colours go from {min(lows):g} to {max(highs):g}, expected 0 to 1, to 255 or to 65535; write them "
            "again or leave them out."
        )
    factor = 65535 if values.dtype.kind == "f" and max(highs) <= 1 else 1
    return np.rint(np.nan_to_num(values, nan=0, posinf=0, neginf=0) * factor).astype(np.uint16)


def _to_codes(values: np.ndarray, ranges: Ranges, name: str) -> np.ndarray:
    return to_codes(values)


def to_codes(values: np.ndarray) -> np.ndarray:
    """Class codes (n,) uint8 of numbers (n,) of any type, `NO_CLASS` for -1 and NaN.

    Raises:
        ScanError: numbers that are no codes.
    """
    none = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
    none |= values == -1
    codes = np.where(none, NO_CLASS, values)
    wrong = ~((codes >= 0) & (codes <= 255) & (codes == np.floor(codes)))
    if wrong.any():
        raise ScanError(
            f"it has class codes such as {codes[wrong][0]:g}, expected whole numbers from 0 to 255, or -1 for none; "
            "renumber its classes."
        )
    return codes.astype(np.uint8)


def _to_count(values: np.ndarray, ranges: Ranges, name: str) -> np.ndarray:
    return np.clip(np.rint(np.nan_to_num(values.astype(np.float64))), 0, 255).astype(np.uint8)


_CONVERSIONS: dict[str, Callable[[np.ndarray, Ranges, str], np.ndarray]] = {
    "intensity": _to_intensity,
    "return_number": _to_count,
    "number_of_returns": _to_count,
    **dict.fromkeys(COLOURS, _to_colour),
    "classification": _to_codes,
}
