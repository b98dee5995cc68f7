"""The extra dimensions that labelling adds to a scan, and their names where the scan has such names already."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from itertools import count

import laspy
import numpy as np

from pointcloud.labelling.measures import STEP
from pointcloud.labelling.options import CONFIDENCE_STEP
from pointcloud.labels import LabelScheme

_LONGEST = 32  # bytes of a name and of a description (LAS 1.4 R16, table 24)
_SUFFIX = "_pointloom"


@dataclass(frozen=True)
class AddedDimension:
    """One byte a point.

    Attributes:
        name: what it is called, unless the scan has a dimension of its own by that name.
        description: by which it is known as ours.
        step: what one step of the byte means; None: the byte is meant.
    """

    name: str
    description: str
    step: float | None = None

    def is_same(self, found: laspy.DimensionInfo) -> bool:
        """Whether an extra dimension of a scan is this one, left by an earlier labelling."""
        scales = None if found.scales is None else np.asarray(found.scales).tolist()
        return (
            found.description == self.description
            and found.num_bits == 8
            and scales == (None if self.step is None else [self.step])
        )


CONFIDENCE = AddedDimension("confidence", "Pointloom: class probability", CONFIDENCE_STEP)
ENTROPY = AddedDimension("entropy", "Pointloom: entropy, 0 to 1", STEP)
ORIGINAL = AddedDimension("original_classification", "Pointloom: class as delivered")
_PROBABILITY = "Pointloom: probability of class"
_DESCRIPTIONS = {CONFIDENCE.description, ENTROPY.description, ORIGINAL.description, _PROBABILITY}


def probability_dimensions(scheme: LabelScheme) -> tuple[AddedDimension, ...]:
    """`p_<class>` for each class, what is no letter or digit as _, cut to 32; two that become one are numbered."""
    names: list[str] = []
    for index, label in enumerate(scheme.names):
        name = f"p_{re.sub(r'[^0-9A-Za-z]+', '_', label)}"[:_LONGEST]
        names.append(name if name not in names else f"{name[: _LONGEST - 4]}_{index}")
    return tuple(AddedDimension(name, _PROBABILITY, STEP) for name in names)


def place(header: laspy.LasHeader, wanted: AddedDimension) -> str:
    """Make sure that a header has a dimension; the name it has there.

    One left by an earlier labelling is used again. A dimension of the scan's own with that name is never touched:
    ours is then called `<name>_pointloom`, the name cut where both are longer than 32.
    """
    for attempt in count():
        ending = "" if attempt == 0 else _SUFFIX if attempt == 1 else f"{_SUFFIX}{attempt}"
        name = wanted.name[: _LONGEST - len(ending)] + ending
        there = [d for d in header.point_format.dimensions if d.name == name]
        if not there:
            scales = None if wanted.step is None else np.array([wanted.step])
            offsets = None if wanted.step is None else np.array([0.0])
            header.add_extra_dim(
                laspy.ExtraBytesParams(name, np.uint8, wanted.description, scales=scales, offsets=offsets)
            )
            return name
        if not there[0].is_standard and wanted.is_same(there[0]):
            return name
    raise AssertionError("names never end")


def free_name(name: str, taken: Container[str], ours: Container[str] = ()) -> str:
    """The name, or one like it where a scan has a column of that name which no earlier labelling wrote.

    Args:
        taken: the scan's columns; ours: those of them that may be written anew.
    """
    while name in taken and name not in ours:
        name += _SUFFIX
    return name


def ours(header: laspy.LasHeader) -> set[str]:
    """Names of the extra dimensions that a labelling has added."""
    return {d.name for d in header.point_format.extra_dimensions if d.description in _DESCRIPTIONS}
