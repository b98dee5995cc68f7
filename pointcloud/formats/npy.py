"""Reading rows of arrays in NPY format (NumPy enhancement proposal 1) in chunks, in whatever order they are stored."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import IO

import numpy as np

from pointcloud.formats.decoding import unreadable


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredArray:
    """An array where it lies in a file.

    Attributes:
        open_stream: opens the NPY data from the beginning, as often as it is called.
        start: byte offset of the first number in that stream.
        dtype: of the numbers or records.
        shape: points first.
        by_columns: whether the values of a column lie together (Fortran order), not those of a point.
    """

    open_stream: Callable[[], IO[bytes]]
    start: int
    dtype: np.dtype
    shape: tuple[int, ...]
    by_columns: bool

    @property
    def row_bytes(self) -> int:
        """Bytes of the values of one point."""
        return self.dtype.itemsize * math.prod(self.shape[1:])

    def transposed(self) -> StoredArray:
        """The same numbers of a 2-dimensional array with rows and columns exchanged."""
        return replace(self, shape=self.shape[::-1], by_columns=not self.by_columns)

    def flat(self) -> StoredArray:
        """The same records as an array of one dimension, where all other dimensions have the length 1."""
        return replace(self, shape=(math.prod(self.shape),), by_columns=False)


def find_array(uri: str, open_stream: Callable[[], IO[bytes]], size: int, expected: str) -> StoredArray:
    """Read the header of an array.

    Args:
        uri: the file, for the message.
        open_stream: opens the array's bytes.
        size: number of these bytes.
        expected: what a sound file is, for the message.

    Raises:
        ScanError: a version that NumPy does not define, or more promised than there is.
    """
    with open_stream() as stream:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise unreadable(uri, f"its array is of NPY version {version}", expected)
        first = version == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(stream)
        start = stream.tell()
    if version == (3, 0):
        # As version 2, but that names are UTF-8; NumPy has no function of its own for it.
        dtype.names = tuple(name.encode("latin-1").decode() for name in dtype.names or ()) or None
    promised = math.prod(shape) * dtype.itemsize
    if promised > size - start and not dtype.hasobject:
        raise unreadable(
            uri, f"its array of shape {shape} promises {promised} bytes, there are {size - start}", expected
        )
    return StoredArray(
        open_stream=open_stream,
        start=start,
        dtype=dtype,
        shape=shape,
        by_columns=by_columns and len(shape) > 1,
    )


class RowReader:
    """The rows of an array of at most two dimensions, so many at a time.

    An array that is stored by columns is read from as many places as it has columns: memory does not grow with it.

    Args:
        uri: the file, for the message.
        array: not of Python objects.
        stack: closes what is opened here.
        expected: what a sound file is, for the message.
    """

    def __init__(self, uri: str, array: StoredArray, stack: ExitStack, expected: str) -> None:
        self._uri, self._array, self._expected = uri, array, expected
        num = array.shape[1] if array.by_columns else 1
        self._streams = [stack.enter_context(array.open_stream()) for _ in range(num)]
        for number, stream in enumerate(self._streams):
            stream.seek(array.start + number * array.shape[0] * array.dtype.itemsize)

    def read(self, count: int) -> np.ndarray:
        """The next `count` rows.

        Raises:
            ScanError: the file ends before them.
        """
        array = self._array
        if not array.by_columns:
            content = self._bytes(self._streams[0], count * array.row_bytes)
            return np.frombuffer(content, array.dtype).reshape(count, *array.shape[1:])
        size = count * array.dtype.itemsize
        return np.stack(
            [np.frombuffer(self._bytes(stream, size), array.dtype) for stream in self._streams], axis=1
        )

    def _bytes(self, stream: IO[bytes], size: int) -> bytes:
        content = stream.read(size)
        if len(content) < size:
            raise unreadable(self._uri, f"it ends after {len(content)} of {size} bytes", self._expected)
        return content
