"""Whatever a decoder raises is one sentence; what is no fault of a file stays what it is."""

from __future__ import annotations

import laszip
import lazrs
import pytest
from laspy.errors import LaspyException

from pointcloud.errors import ScanError, StorageError
from pointcloud.formats.decoding import reading, unreadable
from tests.support.clouds import assert_one_sentence


class PanicException(BaseException):
    """As lazrs raises it, whose own cannot be imported."""


@pytest.mark.parametrize(
    "error",
    [
        LaspyException("bad"), ValueError("bad"), KeyError("bad"), MemoryError(), OSError("bad"),
        ZeroDivisionError("bad"), lazrs.LazrsError("bad"), laszip.LaszipError("bad"),
        PanicException("bad\nbacktrace"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_decoder_s_error_names_the_file(error: BaseException) -> None:
    with pytest.raises(ScanError, match="deliver it again or leave it out") as raised, reading("a.laz"):
        raise error
    assert_one_sentence(raised, "cannot read scan 'a.laz': ")
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", [StorageError("gone."), KeyboardInterrupt(), SystemExit(3)])
def test_other_errors_stay_what_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, reading("a.laz"):
        raise error
    assert raised.value is error


def test_a_reason_is_its_first_line_without_the_library_s_advice() -> None:
    sentence = str(
        unreadable("a.laz", "coder 15 not supported (LASzip v3.5r0) upgrade\nmore", remedy="convert it")
    )
    assert sentence == (
        "cannot read scan 'a.laz': coder 15 not supported; expected a complete LAS or LAZ file: convert it."
    )
