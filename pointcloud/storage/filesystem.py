"""From a URI to a filesystem, and new tries where storage does not answer for a while.

A bucket's server may restart or a network drop: operations that can be repeated are tried for up to a minute, on
top of the seconds that the client library tries itself (about 6 s where nothing answers, up to 100 s where a
connection stands and no data come). A wrong secret is an error at once.

Credentials come from the environment or the files of the cloud's own tools, never from a URI: those are
written into manifests, ledgers, logs and the Prefect server.
"""

from __future__ import annotations

import io
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs

from pointcloud.errors import StorageError, first_line

T = TypeVar("T")

_URI_CHARACTERS = "%:/#[]@!$&'()*+,;="  # besides letters, digits and -._~: RFC 3986; ? is a wildcard here
_PATIENCE_SECONDS = 60.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 5.0
_PASSING = re.compile(
    # An upload is unknown after its server restarted, or when its completion arrived and the answer was lost.
    r"NO_SUCH_UPLOAD|NETWORK_CONNECTION|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|SLOW_DOWN|THROTTL|REQUEST_TIMEOUT|UNAVAILABLE"
    r"|HTTP status 50[0234]|timed? ?out|connection (reset|refused|closed)",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|EXPIRED_TOKEN"
    r"|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION_TOKEN|PERMISSION_DENIED|UNAUTHENTICATED"
    r"|HTTP status 40[13]|AuthenticationFailed|AuthorizationFailure",
)
_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "abfs": "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET, or `az login`",
}
_LOG = logging.getLogger(__name__)


class ChangedError(OSError):
    """An object was replaced while it was read."""


def local_path(uri: str) -> str:
    """The absolute path of something on a disk."""
    return os.path.abspath(os.path.expanduser(uri))


def is_utf8(name: str) -> bool:
    """Whether a name can be written as UTF-8: a disk may hold others, and pyarrow and JSON cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    r"""A name in one line: bytes that are not UTF-8 as ``\xf6``, line breaks and their like as ``\n``."""
    try:
        text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # no name of a disk
        text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def walk(folder: str, recursive: bool) -> Iterator[tuple[str, int, float]]:
    """The files in a folder on a disk, links followed: relative name, bytes, time of writing (s since 1970).

    Unlike pyarrow it lists names that are not UTF-8 too, as Python writes them (PEP 383).

    Raises:
        OSError: a folder cannot be listed.
    """
    folders: list[tuple[str, frozenset[str]]] = [("", frozenset())]
    while folders:
        below, above = folders.pop()
        path = os.path.join(folder, below)
        real = os.path.realpath(path)
        if real in above:  # a link to a folder that it lies in
            continue
        try:
            entries = list(os.scandir(path))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            name = os.path.join(below, entry.name)
            try:
                status = entry.stat()
            except OSError:  # a link to nothing, or gone since
                continue
            if stat.S_ISREG(status.st_mode):
                yield name, status.st_size, status.st_mtime
            elif recursive and stat.S_ISDIR(status.st_mode):
                folders.append((name, above | {real}))


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """The filesystem of a URI and the path on it.

    Raises:
        StorageError: a name that is not UTF-8, a scheme that pyarrow does not know, credentials in the URI, or a bucket
            out of reach.
    """
    if not is_utf8(uri):
        raise StorageError(f"the name of '{printable(uri)}' is not UTF-8; rename it.")
    if "://" not in uri:
        return fs.LocalFileSystem(), local_path(uri)
    _refuse_secrets(uri)
    try:
        # A space typed as a space is meant as one. Where no region is set, the bucket is asked for its own.
        return attempt("reach", uri, lambda: fs.FileSystem.from_uri(quote(uri, safe=_URI_CHARACTERS)))
    except (pa.ArrowException, ValueError) as error:
        raise StorageError(
            f"cannot open storage for {uri!r}: {first_line(error)}; expected a local path or an s3://, "
            "gs:// or abfs:// URI."
        ) from error


def _refuse_secrets(uri: str) -> None:
    scheme, rest = uri.split("://", 1)
    place = rest.split("/", 1)[0]
    user, has_user, _ = place.rpartition("@")
    # Keys of S3 may hold a slash, which ends the part of a URI that they stand in.
    in_front = ":" in user or (scheme == "s3" and (has_user or ":" in place))
    if in_front or re.search(r"[?&][\w.-]*(key|secret|token|signature|sig|password)[\w.-]*=", rest, re.I):
        bare = rest.rpartition("@")[2].split("?")[0] if in_front else rest.split("?")[0]
        hidden = f"{scheme}://{'…@' if in_front else ''}{bare if '@' in rest or not in_front else '…'}"
        raise StorageError(
            f"{hidden!r} was given with credentials in it, and URIs end up in logs and manifests; take them out "
            f"and set {_keys(scheme)} in the environment instead."
        )


def attempt(what: str, uri: str, operation: Callable[[], T]) -> T:
    """The result of an operation that may be done again, done again while the storage is away.

    Args:
        what: what it does to the URI, for messages: "read", "write".
        uri: where, for messages. A disk's errors do not pass and are not waited for.
        operation: raises OSError where it fails, and can be repeated then.

    Raises:
        StorageError: nothing there, access refused, or still away after a minute.
    """
    began, pause = time.monotonic(), _FIRST_PAUSE_SECONDS
    while True:
        try:
            return operation()
        except FileNotFoundError as error:
            raise StorageError(f"nothing at {uri!r}; give an existing file.") from error
        except OSError as error:
            waited = time.monotonic() - began
            passing = isinstance(error, ChangedError) or _PASSING.search(str(error))
            if not passing or waited + pause > _PATIENCE_SECONDS:
                raise StorageError(_sentence(what, uri, error, waited if passing else 0)) from error
            _LOG.warning(
                "cannot %s %s for %.0f s, trying for %.0f s more: %s", what, uri, waited,
                _PATIENCE_SECONDS - waited, first_line(error),
            )  # fmt: skip
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _sentence(what: str, uri: str, error: BaseException, waited: float) -> str:
    reason, scheme = first_line(error), uri.split("://", 1)[0]
    if "://" in uri and _REFUSED.search(str(error)):
        return (
            f"cannot {what} {uri!r}: access is refused ({reason}); check {_keys(scheme)} in the environment."
        )
    if "NO_SUCH_BUCKET" in str(error):
        return f"cannot {what} {uri!r}: there is no such bucket; create it or check its name and {_keys(scheme)}."
    if waited:
        return (
            f"cannot {what} {uri!r}, tried for {waited:.0f} s: {reason}; check that the server runs and is reached "
            "from here, then start again."
        )
    return f"cannot {what} {uri!r}: {reason}."


def _keys(scheme: str) -> str:
    return _KEYS.get("abfs" if scheme.startswith("abfs") else scheme, "its credentials")


class PatientFile(io.RawIOBase):
    """A file in a bucket open for random access, whose reads outlive a server that is away for a moment."""

    def __init__(self, uri: str, filesystem: fs.FileSystem, path: str) -> None:
        self._uri, self._filesystem, self._path = uri, filesystem, path
        self._file = attempt("open", uri, lambda: filesystem.open_input_file(path))
        self._tag, self._size, self._position = entity_tag(self._file), self._file.size(), 0

    def readable(self) -> bool:
        """True, as `io.RawIOBase` asks."""
        return True

    def seekable(self) -> bool:
        """True, as `io.RawIOBase` asks."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position; the new one in bytes."""
        self._position = max(0, offset + (0, self._position, self._size)[whence])
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as the buffer holds, or as there are left."""
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._position))
        piece = attempt("read", self._uri, lambda: self._read(wanted)) if wanted else b""
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _read(self, length: int) -> bytes:
        try:
            piece = self._file.read_at(length, self._position)
        except OSError:
            # The object may have been replaced by now; parts of both would be neither of them.
            self._file = self._filesystem.open_input_file(self._path)
            if (entity_tag(self._file), self._file.size()) != (self._tag, self._size):
                raise StorageError(f"{self._uri!r} was replaced while it was read; start again.") from None
            raise
        if len(piece) < length:
            raise StorageError(f"{self._uri!r} was replaced while it was read; start again.")
        return piece

    def close(self) -> None:
        """Close the file, once."""
        if not self.closed:
            self._file.close()
        super().close()


def entity_tag(file: pa.NativeFile) -> str | None:
    """The ETag an open object came with, where its service gives one; asks for nothing."""
    metadata = {_text(name).lower(): _text(value) for name, value in (file.metadata() or {}).items()}
    return metadata.get("etag", "").strip('"') or None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
