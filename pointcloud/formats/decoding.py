"""Errors of decoders as one sentence that names the file and says what to do."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from tokenize import TokenError

from laspy.errors import LaspyException

from pointcloud.errors import PointloomError, ScanError, first_line

_DAMAGE = (
    LaspyException, OSError, ValueError, struct.error, ArithmeticError, LookupError, MemoryError, SystemError,
    EOFError, RecursionError,
    # of archives of arrays: zipfile says NotImplementedError and RuntimeError of methods and passwords, and NumPy
    # parses headers as Python literals
    zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, SyntaxError, TokenError,
)  # fmt: skip
_LONGEST_REASON = 300  # some libraries repeat the bytes that they do not understand
_BY_NAME = ("PanicException", "LazrsError", "LaszipError", "E57Exception")
LAS_FILE = "a complete LAS or LAZ file"


@contextmanager
def reading(uri: str, expected: str = LAS_FILE) -> Iterator[None]:
    """Turn whatever a decoder throws at a bad file into a ScanError that names the file.

    lazrs panics with a PanicException, which derives from BaseException and cannot be imported by name; laszip and
    pye57, which may be missing, have exceptions of their own.

    Raises:
        ScanError: in place of what the decoder raised.
    """
    try:
        yield
    except PointloomError:
        raise
    except _DAMAGE as error:
        raise unreadable(uri, error, expected) from error
    except BaseException as error:
        if type(error).__name__ in _BY_NAME:
            raise unreadable(uri, error, expected) from error
        raise


def unreadable(
    uri: str,
    error: BaseException | str,
    expected: str = LAS_FILE,
    remedy: str = "deliver it again or leave it out",
) -> ScanError:
    """The sentence for a scan that cannot be decoded.

    Args:
        error: what a decoder raised, or the reason in words.
        expected: what a sound file is.
        remedy: what to do; files that are sound and not understood are not to be delivered again.
    """
    reason = first_line(error) if isinstance(error, BaseException) else error
    # LASzip ends with its version and whom to write to.
    reason = reason.partition(" (LASzip v")[0].rstrip(".")
    reason = "".join(letter if letter.isprintable() else "?" for letter in reason[:_LONGEST_REASON])
    return ScanError(f"cannot read scan {uri!r}: {reason}; expected {expected}: {remedy}.")
