"""Every path is a URI: a local path, or s3://, gs://, abfs:// through pyarrow filesystems.

Outputs appear under their final name whole or not at all: local files are renamed into place, objects in a
bucket become visible when their upload is complete.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import io
import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
from pyarrow import fs

from pointcloud.errors import StorageError
from pointcloud.storage.filesystem import ChangedError, PatientFile, attempt, entity_tag, resolve

_WILDCARDS = "*?["
_IN_THE_MAKING = re.compile(r"\..+\.[0-9a-f]{8}\.part")
_READ_AHEAD_BYTES = 1 << 20  # a request to a bucket costs as much time as this many bytes
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_PROBE_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """One input found in storage: where it is, and its name relative to what the user asked for."""

    uri: str
    name: str


def is_local(uri: str) -> bool:
    """Whether the URI is on a disk of this machine."""
    return isinstance(resolve(uri)[0], fs.LocalFileSystem)


def join(uri: str, *parts: str) -> str:
    """The URI of something below a folder, given by its plain names."""
    return "/".join([uri.rstrip("/"), *(map(quote, parts) if "://" in uri else parts)])


def name_of(uri: str) -> str:
    """The last part of a URI, as a plain name."""
    name = PurePosixPath(uri.rstrip("/")).name
    return unquote(name) if "://" in uri else name


@dataclass(frozen=True)
class Stored:
    """A file found in a folder: its URI, its name below the folder, bytes, and when it was last written (s)."""

    uri: str
    name: str
    size: int
    modified: float


def list_files(folder: str, recursive: bool = True, hidden: bool = False) -> list[Stored]:
    """The files below a folder by name, without those a leading dot hides; none where there is no folder.

    With `hidden` those are listed too, among them files in the making.

    `modified` is by the clock of the storage, in seconds since 1970; a bucket's may be whole seconds.

    Raises:
        StorageError: the folder cannot be listed.
    """
    filesystem, base = resolve(folder)
    selector = fs.FileSelector(base, recursive=recursive, allow_not_found=True)
    infos = attempt("list", folder, lambda: filesystem.get_file_info(selector))
    found = []
    for info in infos:
        name = os.path.relpath(info.path, base)
        if info.type != fs.FileType.File:
            continue
        if hidden or not any(part.startswith(".") for part in name.split("/")):
            # A path is given back whole: who reads it may run in another folder.
            uri = join(folder, *name.split("/")) if "://" in folder else info.path
            found.append(Stored(uri, name, info.size, (info.mtime_ns or 0) / 1e9))
    return sorted(found, key=lambda file: file.name)


def expand(patterns: list[str], suffixes: tuple[str, ...]) -> list[Source]:
    """The files meant by paths, folders and globs, sorted by name.

    A folder means the files in it that end in one of `suffixes`; a glob may use ``*``, ``?``, ``[…]`` and
    ``**`` for any depth. What a leading dot hides in them is left out. Names are relative to the folder, or
    to the part of the glob before its first wildcard, so that a file keeps its name when others come and go.

    Raises:
        StorageError: nothing at a path, nothing matched, or two files with one name.
    """
    found = [source for pattern in patterns for source in _expand_one(pattern, suffixes)]
    return sorted(unique(found), key=lambda source: source.name)


def unique(sources: Iterable[Source]) -> list[Source]:
    """Each source once, in the order given.

    Raises:
        StorageError: two sources with one name.
    """
    found: dict[str, Source] = {}
    for source in sources:
        other = found.setdefault(source.name, source)
        if other.uri != source.uri and not same(other.uri, source.uri):
            raise StorageError(
                f"{other.uri!r} and {source.uri!r} would both be called {source.name!r} in the output; "
                "give the folder above them instead, or process them into two folders."
            )
    return list(found.values())


def is_glob(pattern: str) -> bool:
    """Whether a pattern means what matches it: a path that exists is itself, also with a bracket in its name."""
    return any(c in pattern for c in _WILDCARDS) and not exists(pattern)


def _expand_one(pattern: str, suffixes: tuple[str, ...]) -> list[Source]:
    if not is_glob(pattern):
        filesystem, path = resolve(pattern)
        kind = _info(filesystem, path, pattern).type
        if kind == fs.FileType.File:
            return [Source(pattern, name_of(pattern))]
        if kind == fs.FileType.NotFound:
            raise StorageError(f"nothing at {pattern!r}; give an existing file, folder or glob.")
        base_uri, match = pattern, "**"
    else:
        parts = pattern.split("/")
        first = next(i for i, part in enumerate(parts) if any(c in part for c in _WILDCARDS))
        base_uri = "/".join(parts[:first]) or ("/" if pattern.startswith("/") else ".")
        match = "/".join(parts[first:])
    sources = [
        Source(file.uri, file.name)
        for file in list_files(base_uri, recursive="/" in match or "**" in match)
        if _matches(file.name, match) and (match != "**" or file.name.lower().endswith(suffixes))
    ]
    if not sources:
        raise StorageError(
            f"no file matches {pattern!r}; expected files ending in {' or '.join(suffixes)}: check the path "
            "and quote globs in the shell."
        )
    return sources


def _matches(name: str, pattern: str) -> bool:
    """Glob match part by part: ``*`` stays inside a folder, ``**`` crosses any number of them."""

    def match(names: list[str], patterns: list[str]) -> bool:
        if not patterns:
            return not names
        if patterns[0] == "**":
            return any(match(names[i:], patterns[1:] or ["*"]) for i in range(len(names)))
        return bool(names) and fnmatch.fnmatchcase(names[0], patterns[0]) and match(names[1:], patterns[1:])

    return match(name.split("/"), pattern.split("/"))


def exists(uri: str) -> bool:
    """Whether there is a file or a folder.

    Raises:
        StorageError: the storage cannot be reached.
    """
    filesystem, path = resolve(uri)
    return _info(filesystem, path, uri).type != fs.FileType.NotFound


def is_folder(uri: str) -> bool:
    """Whether there is a folder.

    Raises:
        StorageError: the storage cannot be reached.
    """
    filesystem, path = resolve(uri)
    return _info(filesystem, path, uri).type == fs.FileType.Directory


def _info(filesystem: fs.FileSystem, path: str, uri: str) -> fs.FileInfo:
    return attempt("reach", uri, lambda: filesystem.get_file_info(path))


def same(one: str, other: str) -> bool:
    """Whether two URIs mean the same place."""
    (filesystem, path), (other_filesystem, other_path) = resolve(one), resolve(other)
    return filesystem == other_filesystem and os.path.realpath(path) == os.path.realpath(other_path)


def size(uri: str) -> int:
    """Bytes of a file, 0 where there is none."""
    filesystem, path = resolve(uri)
    return _info(filesystem, path, uri).size or 0


def open_input(uri: str) -> pa.NativeFile:
    """A file open for random access.

    Raises:
        StorageError: nothing there, or not to be reached.
    """
    filesystem, path = resolve(uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        return attempt("open", uri, lambda: filesystem.open_input_file(path))
    return pa.PythonFile(io.BufferedReader(PatientFile(uri, filesystem, path), _READ_AHEAD_BYTES), mode="r")


def read_bytes(uri: str) -> bytes:
    """The content of a file, of one moment: never half of it, nor of two that were written one after the other."""
    filesystem, path = resolve(uri)

    def read() -> bytes:
        with filesystem.open_input_file(path) as file:
            content, tag = file.read(), entity_tag(file)
        if tag is not None:
            # An object is read as long as it was when it was opened, also when it is a longer one by then.
            with filesystem.open_input_file(path) as now:
                if entity_tag(now) != tag:
                    raise ChangedError(f"{uri!r} was replaced while it was read")
        return content

    return attempt("read", uri, read)


def read_json(uri: str) -> Any:
    """Raises StorageError when the file is missing or is no JSON."""
    try:
        return json.loads(read_bytes(uri))
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{uri!r} is not JSON ({error}); it may be damaged, make it again.") from error


def content_hash(uri: str) -> str:
    """BLAKE2b of the content, 32 hex digits; reads in pieces of 4 MiB."""
    digest = hashlib.blake2b(digest_size=16)
    with open_input(uri) as stream:
        while piece := stream.read(4 << 20):
            digest.update(piece)
    return digest.hexdigest()


def fingerprint(uri: str) -> str:
    """What tells one content of a file from another, with the way it was found out in front.

    A local file's is the hash of its bytes: neither its name nor its time count, so a copy or a checkout of
    the same bytes is the same, and an edit that keeps size and time is not. In a bucket it is the ETag and the
    size, which cost one request and read nothing; the same bytes uploaded in parts of another size have
    another ETag, and then work is done again that need not be, never the other way. Where a service gives no
    ETag the bytes are hashed there too.

    Raises:
        StorageError: nothing there, or not to be reached.
    """
    filesystem, path = resolve(uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        return f"blake2b:{content_hash(uri)}"
    # Nothing is read from the file: opening it asks for the object's metadata alone.
    with attempt("open", uri, lambda: filesystem.open_input_file(path)) as file:
        tag, num_bytes = entity_tag(file), file.size()
    return f"etag:{tag}:{num_bytes}" if tag else f"blake2b:{content_hash(uri)}"


@contextmanager
def staged(uri: str) -> Iterator[Path]:
    """A local path to write to; what is there when the block ends without error becomes `uri`, at once.

    Raises:
        StorageError: the place cannot be written. Nothing is left under the final name then.
    """
    filesystem, path = resolve(uri)
    local = isinstance(filesystem, fs.LocalFileSystem)
    folder = Path(path).parent if local else Path(tempfile.gettempdir())
    part = folder / f".{name_of(uri)}.{uuid.uuid4().hex[:8]}.part"  # as _IN_THE_MAKING has it
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield part
        if local:
            os.replace(part, path)
        else:
            attempt("write", uri, lambda: _upload(part, filesystem, path))
    except OSError as error:
        raise StorageError(f"cannot write {uri!r}: {str(error).rstrip('.')}.") from error
    except Exception as error:
        if reason := _no_room(error, part):
            raise StorageError(f"cannot write {uri!r}: {str(reason).rstrip('.')}.") from error
        raise
    finally:
        # Where the folder could not be made there is nothing to remove, and no second error to raise.
        with suppress(OSError):
            part.unlink()


def _no_room(error: BaseException | None, part: Path) -> OSError | None:
    """Why a file in the making could not grow, where that is what an encoder failed of, whatever it calls it.

    A LAZ encoder tells no more of a full disk than "Failed to call flush", and who reads a scan meanwhile may
    take that for a defect of the scan: so what led to the error is looked at, then whether the file takes more.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return error
        error = error.__cause__
    try:
        with part.open("ab", buffering=0) as file:
            left = memoryview(bytes(_PROBE_BYTES))
            while left:
                left = left[file.write(left) :]
    except OSError as reason:
        return reason if reason.errno in _NO_ROOM else None
    return None


def remove_unfinished(folder: str, idle_s: float) -> list[str]:
    """Remove what killed writers left below a local folder: files in the making that nobody wrote to for so long.

    In a bucket there is nothing to remove: objects are made elsewhere first. Returns their names.
    """
    if not is_local(folder):
        return []
    stale = [
        file for file in list_files(folder, hidden=True)
        if _IN_THE_MAKING.fullmatch(name_of(file.uri)) and time.time() - file.modified > idle_s
    ]  # fmt: skip
    for file in stale:
        delete(file.uri)
    return [file.name for file in stale]


def _upload(part: Path, filesystem: fs.FileSystem, path: str) -> None:
    """Make a local file an object, which is there when its last part is, and not before.

    Not by `pyarrow.fs.copy_files`: that leaves closing the stream to its destructor, which drops the error of
    an upload that failed. And in one write, because a stream that is closed after half of it completes the half.
    """
    with pa.memory_map(str(part)) if part.stat().st_size else pa.BufferReader(b"") as whole:
        stream = filesystem.open_output_stream(path)
        try:
            stream.write(whole.read_buffer())
        finally:
            stream.close()


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file whole: it has its name only when all of it is there."""
    with staged(uri) as part:
        part.write_bytes(content)


def write_json(uri: str, record: Any) -> None:
    """JSON with sorted keys and no NaN: equal records give equal bytes, and every reader takes them."""
    write_bytes(uri, (json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def touch(uri: str) -> None:
    """Make a file's time of writing now, by the clock of the storage.

    Raises:
        StorageError: nothing there, or not to be written.
    """
    filesystem, path = resolve(uri)
    if not isinstance(filesystem, fs.LocalFileSystem):
        write_bytes(uri, read_bytes(uri))  # an object's time is when it was put there
        return
    attempt("touch", uri, lambda: os.utime(path))


def delete(uri: str) -> None:
    """Remove a file; no error when it is gone already."""
    filesystem, path = resolve(uri)

    def remove() -> None:
        with suppress(FileNotFoundError):
            filesystem.delete_file(path)

    attempt("delete", uri, remove)
