"""Names and types as found in the wild become the columns of a cloud."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pointcloud.errors import ScanError
from pointcloud.formats.columns import Table, iterate_columns, match_names


def convert(notes: list[str] | None = None, **values: np.ndarray) -> dict[str, np.ndarray]:
    """Attributes of a scan read in two chunks, the second after the first one's end."""
    num_points = len(next(iter(values.values())))
    whole: Table = {axis: np.arange(num_points, dtype=np.float64) for axis in "xyz"} | values

    def tables() -> Iterator[Table]:
        for part in (slice(0, 2), slice(2, None)):
            yield {name: column[part] for name, column in whole.items()}

    types = {name: column.dtype for name, column in whole.items()}
    chunks = list(iterate_columns(tables, types, (notes if notes is not None else []).append))
    return {name: np.concatenate([chunk[1][name] for chunk in chunks]) for name in chunks[0][1]}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("x y z red green blue", "x y z red green blue"),
        ("X Y Z R G B", "X Y Z R G B"),
        ("x y z diffuse_red diffuse_green diffuse_blue", "x y z diffuse_red diffuse_green diffuse_blue"),
        ("x y z scalar_Intensity scalar_Classification", "x y z scalar_Intensity scalar_Classification"),
        ("x y z scalar_Label nx ny nz", "x y z scalar_Label"),
        ("x y z class label", "x y z class"),
        ("x y z red blue", "x y z"),
        ("x y z Return_Number scalar_Number_Of_Returns", "x y z scalar_Number_Of_Returns Return_Number"),
        ("x y z returnnumber numberofreturns", "x y z returnnumber numberofreturns"),
        ("x y z return_number ReturnNumber", "x y z return_number"),
    ],
)
def test_names(names: str, expected: str) -> None:
    assert sorted(match_names(names.split()).values()) == sorted(expected.split())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 7, 65535], np.uint16), [0, 7, 65535]),
        (np.array([0, 7, 255], np.uint8), [0, 7, 255]),
        (np.array([0, 0.5, 1], np.float32), [0, 32768, 65535]),
        (np.array([0, 1, 2000.4]), [0, 1, 2000]),
        (np.array([-20, -10, 0], np.int16), [0, 10, 20]),
        (np.array([0, 65536, 131070], np.int32), [0, 32768, 65535]),
        (np.array([np.nan, 10, 20]), [0, 10, 20]),
        (np.array([0.0, 0.0, 0.0]), [0, 0, 0]),
    ],
)
def test_intensity(values: np.ndarray, expected: list[int]) -> None:
    found = convert(intensity=values)["intensity"]
    assert found.dtype == np.uint16
    assert found.tolist() == expected


def test_a_stretched_intensity_is_reported() -> None:
    notes: list[str] = []
    convert(notes, intensity=np.array([-0.5, 0.0, 0.5]))
    assert "begin at -0.5 and are multiplied by 65535" in notes[0]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (np.uint8, [0, 3, 255], [0, 771, 65535]),
        (np.uint16, [0, 3, 65535], [0, 3, 65535]),
        (np.float32, [0, 0.2, 1], [0, 13107, 65535]),
        (np.float32, [0, 1, 255], [0, 1, 255]),  # settled by the caller: see reader.colour_scale
        (np.int32, [0, 1, 1], [0, 1, 1]),
    ],
)
def test_colours(kind: type, values: list[float], expected: list[int]) -> None:
    # The chunk of the first two values alone would be taken for something else.
    column = np.array(values, kind)
    found = convert(red=column, green=column[::-1].copy(), blue=np.zeros(3, kind))
    assert found["red"].tolist() == expected
    assert found["green"].tolist() == expected[::-1]
    assert found["red"].dtype == np.uint16


def test_colours_that_cannot_be() -> None:
    wrong = np.array([0, 1, 70_000.0])
    with pytest.raises(ScanError, match="from 0 to 70000"):
        convert(red=wrong, green=wrong, blue=wrong)


def test_classes() -> None:
    assert convert(classification=np.array([2, -1, 6], np.int32))["classification"].tolist() == [2, 255, 6]
    assert convert(classification=np.array([2.0, np.nan, 6.0]))["classification"].tolist() == [2, 255, 6]
    assert convert(classification=np.array([0, 1, 255], np.uint8))["classification"].dtype == np.uint8
    for wrong in (np.array([1, 2, 256]), np.array([1, 2.5, 3]), np.array([-2, 0, 1])):
        with pytest.raises(ScanError, match="expected whole numbers from 0 to 255"):
            convert(classification=wrong)


def test_returns() -> None:
    found = convert(return_number=np.array([1.0, 2.0, np.nan]), number_of_returns=np.array([3, 300, -1]))
    assert found["return_number"].tolist() == [1, 2, 0]
    assert found["number_of_returns"].tolist() == [3, 255, 0]
