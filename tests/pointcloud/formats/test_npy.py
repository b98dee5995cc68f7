"""Arrays in NPY format, some rows at a time, whatever their order in the file."""

from __future__ import annotations

import io
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointcloud.errors import ScanError
from pointcloud.formats.npy import RowReader, StoredArray, find_array


def stored(array: np.ndarray, cut: int | None = None) -> StoredArray:
    stream = io.BytesIO()
    np.save(stream, array)
    content = stream.getvalue()
    return find_array("a.npy", lambda: io.BytesIO(content[:cut]), len(content), "an array")


def read(array: StoredArray, step: int) -> np.ndarray:
    with ExitStack() as stack:
        reader = RowReader("a.npy", array, stack, "an array")
        sizes = [min(step, array.shape[0] - start) for start in range(0, array.shape[0], step)]
        return np.concatenate([reader.read(size) for size in sizes])


@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 5),
    step=st.integers(1, 25),
    kind=st.sampled_from(["f8", ">f4", "<u2", "i1", "f2"]),
    order=st.sampled_from("CF"),
)
def test_rows_come_back_in_any_steps(rows: int, columns: int, step: int, kind: str, order: Any) -> None:
    array = np.arange(rows * columns).reshape(rows, columns).astype(kind, order=order)
    found = stored(array)
    assert found.row_bytes == columns * array.dtype.itemsize
    np.testing.assert_array_equal(read(found, step), array)
    np.testing.assert_array_equal(read(found.transposed(), step), array.T)


def test_one_dimension_has_no_order() -> None:
    found = stored(np.asfortranarray(np.arange(7.0)))
    assert not found.by_columns
    np.testing.assert_array_equal(read(found, 3), np.arange(7))
    np.testing.assert_array_equal(read(stored(np.arange(7)[None]).flat(), 2), np.arange(7))


def test_a_stream_that_ends_early_is_one_sentence() -> None:
    for order in ("C", "F"):
        with pytest.raises(ScanError, match=r"cannot read scan 'a\.npy': it ends after"):
            read(stored(np.ones((9, 3), order=order), cut=-20), 9)


def test_a_header_of_another_version_is_refused() -> None:
    with pytest.raises(ScanError, match=r"NPY version \(9, 0\)"):
        find_array("a.npy", lambda: io.BytesIO(b"\x93NUMPY\x09\x00" + bytes(100)), 108, "an array")
