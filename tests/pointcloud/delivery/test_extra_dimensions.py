"""Names of added dimensions: never those of the scan's own, always the same for a cloud that is labelled again."""

from __future__ import annotations

import laspy
import numpy as np
import pytest

from pointcloud.delivery.extra_dimensions import (
    CONFIDENCE,
    ENTROPY,
    ORIGINAL,
    AddedDimension,
    add_to_header,
    added_dimensions,
    free_name,
    is_named_as,
    labelling_dimensions,
)
from pointcloud.labelling.options import LabelOptions
from pointcloud.labels import PRESETS


def header(*own: laspy.ExtraBytesParams) -> laspy.LasHeader:
    made = laspy.LasHeader(version="1.4", point_format=6)
    made.add_extra_dims(list(own))
    return made


def test_a_dimension_is_added_once() -> None:
    las = header()
    assert add_to_header(las, CONFIDENCE) == add_to_header(las, CONFIDENCE) == "confidence"
    assert labelling_dimensions(las) == {"confidence"}
    (dimension,) = las.point_format.extra_dimensions
    assert CONFIDENCE.is_same(dimension)
    assert not ENTROPY.is_same(dimension)


@pytest.mark.parametrize(
    "own",
    [
        laspy.ExtraBytesParams("confidence", np.float32),
        laspy.ExtraBytesParams("confidence", np.uint8, CONFIDENCE.description),  # no scale: not what we write
        laspy.ExtraBytesParams("confidence", np.uint16, CONFIDENCE.description, [0.0], [0.01]),
    ],
)
def test_a_dimension_of_the_scan_s_own_is_not_touched(own: laspy.ExtraBytesParams) -> None:
    las = header(own)
    assert add_to_header(las, CONFIDENCE) == "confidence_pointloom"
    assert add_to_header(las, CONFIDENCE) == "confidence_pointloom"
    las = header(own, laspy.ExtraBytesParams("confidence_pointloom", np.float32))
    assert add_to_header(las, CONFIDENCE) == "confidence_pointloom2"


def test_a_standard_dimension_is_not_touched_and_long_names_are_cut() -> None:
    assert add_to_header(header(), AddedDimension("intensity", "x")) == "intensity_pointloom"
    long = AddedDimension("p_" + "x" * 30, "x")
    name = add_to_header(header(laspy.ExtraBytesParams(long.name, np.float32)), long)
    assert name == "p_" + "x" * 20 + "_pointloom"


def test_columns_are_named_alike() -> None:
    assert free_name("confidence", {"x"}) == "confidence"
    assert free_name("confidence", {"confidence"}) == "confidence_pointloom"
    assert free_name("confidence", {"confidence"}, replaceable={"confidence"}) == "confidence"
    names = {"confidence", "confidence_pointloom"}
    assert free_name("confidence", names) == "confidence_pointloom_pointloom"
    assert all(is_named_as(name, CONFIDENCE) for name in (*names, free_name("confidence", names)))
    assert not any(
        is_named_as(name, CONFIDENCE) for name in ("confidences", "confidence_2", "scan_confidence")
    )


def test_options_say_what_is_added() -> None:
    scheme = PRESETS["ground-vegetation-building"]
    assert added_dimensions(scheme, LabelOptions()) == (CONFIDENCE,)
    every = added_dimensions(scheme, LabelOptions(entropy=True, probabilities=True, keep_original=True))
    assert every[:2] == (CONFIDENCE, ENTROPY)
    assert every[-1] == ORIGINAL
    assert [d.name for d in every[2:-1]] == [f"p_{name}" for name in scheme.names]
