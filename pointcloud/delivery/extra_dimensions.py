"""The extra dimensions that labelling adds to a scan, and their names where the scan has such names already."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from itertools import count

import laspy
import numpy as np

from pointcloud.labelling.measures import STEP
from pointcloud.labelling.options import CONFIDENCE_STEP, LabelOptions
from pointcloud.labels import LabelScheme

_LONGEST = 32  # bytes of a name and of a description (LAS 1.4 R16, table 24)
_SUFFIX = "_pointloom"


@dataclass(frozen=True, slots=True)
class AddedDimension:
    """A dimension that labelling adds, one byte a point.

    Attributes:
        name: what it is called, unless the scan has a dimension of its own by that name.
        description: by which it is recognised in a cloud that is labelled again.
        step: the value is the byte times this; None: the value is the byte.
    """

    name: str
    description: str
    step: float | None = None

    def is_same(self, dimension: laspy.DimensionInfo) -> bool:
        """Whether an extra dimension of a scan is this one, left by an earlier labelling."""
        scales = None if dimension.scales is None else np.asarray(dimension.scales).tolist()
        return (
            dimension.description == self.description
            and dimension.num_bits == 8
            and scales == (None if self.step is None else [self.step])
        )


CONFIDENCE = AddedDimension("confidence", "Pointloom: class probability", CONFIDENCE_STEP)
ENTROPY = AddedDimension("entropy", "Pointloom: entropy, 0 to 1", STEP)
ORIGINAL = AddedDimension("original_classification", "Pointloom: class as delivered")
_PROBABILITY = "Pointloom: probability of class"
_DESCRIPTIONS = {CONFIDENCE.description, ENTROPY.description, ORIGINAL.description, _PROBABILITY}


def probability_dimensions(scheme: LabelScheme) -> tuple[AddedDimension, ...]:
    """`p_<class>` for each class: letters and digits stay, all else becomes _, 32 bytes at most.

    Where two classes would have the same name, the later one ends with its number.
    """
    names: list[str] = []
    for index, label in enumerate(scheme.names):
        name = f"p_{re.sub(r'[^0-9A-Za-z]+', '_', label)}"[:_LONGEST]
        names.append(name if name not in names else f"{name[: _LONGEST - 4]}_{index}")
    return tuple(AddedDimension(name, _PROBABILITY, STEP) for name in names)


def added_dimensions(scheme: LabelScheme, options: LabelOptions) -> tuple[AddedDimension, ...]:
    """Every dimension that a labelled cloud has besides the scan's, in the order in which they are added."""
    entropy = (ENTROPY,) if options.entropy else ()
    probabilities = probability_dimensions(scheme) if options.probabilities else ()
    return CONFIDENCE, *entropy, *probabilities, *((ORIGINAL,) if options.keep_original else ())


def add_to_header(header: laspy.LasHeader, wanted: AddedDimension) -> str:
    """Make sure that a header has a dimension.

    A dimension left by an earlier labelling is used again. One of the scan's own with that name is never touched: the
    added one is then called `<name>_pointloom`, the name cut where both are longer than 32.

    Returns:
        The name that the dimension has in the header.
    """
    for attempt in count():
        ending = "" if attempt == 0 else _SUFFIX if attempt == 1 else f"{_SUFFIX}{attempt}"
        name = wanted.name[: _LONGEST - len(ending)] + ending
        existing = [d for d in header.point_format.dimensions if d.name == name]
        if not existing:
            scales = None if wanted.step is None else np.array([wanted.step])
            offsets = None if wanted.step is None else np.array([0.0])
            header.add_extra_dim(
                laspy.ExtraBytesParams(name, np.uint8, wanted.description, scales=scales, offsets=offsets)
            )
            return name
        if not existing[0].is_standard and wanted.is_same(existing[0]):
            return name
    raise AssertionError("names never end")


def free_name(name: str, taken: Container[str], replaceable: Container[str] = ()) -> str:
    """The name, or one like it where a scan has a column of that name which no earlier labelling wrote.

    Args:
        taken: the scan's columns.
        replaceable: those of them that may be written again.
    """
    while name in taken and name not in replaceable:
        name += _SUFFIX
    return name


def is_named_as(name: str, dimension: AddedDimension) -> bool:
    """Whether a column has the name that `free_name` gives to a dimension."""
    return name.startswith(dimension.name) and not name[len(dimension.name) :].replace(_SUFFIX, "")


def labelling_dimensions(header: laspy.LasHeader) -> set[str]:
    """Names of the extra dimensions that a labelling has added."""
    return {d.name for d in header.point_format.extra_dimensions if d.description in _DESCRIPTIONS}
