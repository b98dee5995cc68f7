"""Every path is a URI: a local path, or s3://, gs://, abfs:// through pyarrow filesystems.

Outputs appear under their final name whole or not at all: local files are renamed into place, objects in a
bucket become visible when their upload is complete.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
from pyarrow import fs

from pointcloud.errors import StorageError
from pointcloud.storage.filesystem import (
    ChangedError,
    PatientFile,
    attempt,
    entity_tag,
    local_path,
    resolve,
    walk,
)

_IN_THE_MAKING = re.compile(r"\..+\.[0-9a-f]{8}\.part")
_READ_AHEAD_BYTES = 1 << 20  # a request to a bucket costs as much time as this many bytes
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_PROBE_BYTES = 1 << 20
LONGEST_NAME_BYTES = 255 - len(f".{8 * '0'}.part.")
"""Outputs add a suffix such as .parquet to the name of their scan, files being written a dot and an ending."""


def is_below(path: str) -> bool:
    """Whether a relative path with "/" stays below the folder that it is joined to."""
    return all(part not in ("", ".", "..") and "\0" not in part for part in path.split("/"))


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
    """A file found in a folder.

    Attributes:
        uri, name: where it is, and its name below the folder.
        size: bytes.
        modified: when it was last written, in seconds since 1970 by the clock of the storage; a bucket's may be whole
            seconds.
    """

    uri: str
    name: str
    size: int
    modified: float


def list_files(folder: str, recursive: bool = True, hidden: bool = False) -> list[Stored]:
    """The files below a folder by name, without those a leading dot hides; none where there is no folder.

    Args:
        folder: its URI.
        recursive: also what lies in folders below it.
        hidden: also what a leading dot hides, such as files that are being written.

    Returns:
        The files. Paths on a disk are absolute: who reads them may run in another folder. Their names may be no
        UTF-8, and such a file cannot be opened here: see `source_of`.

    Raises:
        StorageError: the folder cannot be listed.
    """
    if "://" not in folder:
        base = local_path(folder)
        listed = attempt("list", folder, lambda: list(walk(base, recursive)))
        stored = [Stored(os.path.join(base, name), name, size, modified) for name, size, modified in listed]
    else:
        filesystem, base = resolve(folder)
        selector = fs.FileSelector(base, recursive=recursive, allow_not_found=True)
        infos = attempt("list", folder, lambda: filesystem.get_file_info(selector))
        names = [(os.path.relpath(info.path, base), info) for info in infos if info.type == fs.FileType.File]
        stored = [
            Stored(join(folder, *name.split("/")), name, info.size, (info.mtime_ns or 0) / 1e9)
            for name, info in names
        ]
    shown = [
        file for file in stored if hidden or not any(part.startswith(".") for part in file.name.split("/"))
    ]
    return sorted(shown, key=lambda file: file.name)


def path_type(uri: str) -> fs.FileType:
    """Whether a URI is a file, a folder, or nothing."""
    filesystem, path = resolve(uri)
    return _info(filesystem, path, uri).type


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
    """The content of a file at one moment: never a part of it, nor parts of two versions."""
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
    """A local path to write to; what is there when the `with` body ends without error becomes `uri`, at once.

    Raises:
        StorageError: the place cannot be written. Nothing is left under the final name then.
    """
    filesystem, path = resolve(uri)
    local = isinstance(filesystem, fs.LocalFileSystem)
    folder = Path(path).parent if local else Path(tempfile.gettempdir())
    # The name that _IN_THE_MAKING matches, short enough for a disk.
    stem = name_of(uri).encode()[:LONGEST_NAME_BYTES].decode(errors="ignore")
    unfinished = folder / f".{stem}.{uuid.uuid4().hex[:8]}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield unfinished
        if local:
            os.replace(unfinished, path)
        else:
            attempt("write", uri, lambda: _upload(unfinished, filesystem, path))
    except OSError as error:
        raise StorageError(f"cannot write {uri!r}: {str(error).rstrip('.')}.") from error
    except Exception as error:
        if reason := _no_room(error, unfinished):
            raise StorageError(f"cannot write {uri!r}: {str(reason).rstrip('.')}.") from error
        raise
    finally:
        # Where the folder could not be made there is nothing to remove, and no second error to raise.
        with suppress(OSError):
            unfinished.unlink()


def _no_room(error: BaseException | None, unfinished: Path) -> OSError | None:
    """Why a file that is being written could not grow, where this is why an encoder failed, whatever its message.

    Of a full disk a LAZ encoder says only "Failed to call flush", and the caller, which also reads a scan, may take
    that for a defect of the scan. So the cause of the error is looked at, then whether the file can still grow.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return error
        error = error.__cause__
    try:
        with unfinished.open("ab", buffering=0) as file:
            left = memoryview(bytes(_PROBE_BYTES))
            while left:
                left = left[file.write(left) :]
    except OSError as reason:
        return reason if reason.errno in _NO_ROOM else None
    return None


def remove_unfinished(folder: str, idle_s: float) -> list[str]:
    """Remove unfinished files that killed writers left below a local folder and that have not grown for so long.

    In a bucket there is nothing to remove: objects are made elsewhere first. Returns their names.
    """
    if not is_local(folder):
        return []
    stale = [
        file for file in list_files(folder, hidden=True)
        if _IN_THE_MAKING.fullmatch(name_of(file.uri)) and time.time() - file.modified > idle_s
    ]  # fmt: skip
    for file in stale:
        delete_below(folder, file.name)
    return [file.name for file in stale]


def _upload(unfinished: Path, filesystem: fs.FileSystem, path: str) -> None:
    """Make a local file an object, which is there when its last part is, and not before.

    Not by `pyarrow.fs.copy_files`: that leaves closing the stream to its destructor, which drops the error of
    an upload that failed. And in one write, because a stream that is closed after half of it completes the half.
    """
    with pa.memory_map(str(unfinished)) if unfinished.stat().st_size else pa.BufferReader(b"") as whole:
        stream = filesystem.open_output_stream(path)
        try:
            stream.write(whole.read_buffer())
        finally:
            stream.close()


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file whole: it has its name only when all of it is there."""
    with staged(uri) as unfinished:
        unfinished.write_bytes(content)


def write_json(uri: str, record: Any) -> None:
    """JSON with sorted keys and no NaN: equal records give equal bytes, and every reader takes them."""
    write_bytes(uri, (json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def touch(uri: str) -> None:
    """Set a file's time of writing to now, by the clock of the storage.

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


def delete_below(folder: str, path: str) -> None:
    """Remove a file by its path relative to a folder; no error when it is gone already.

    A path that leads out of the folder is left alone, by its name or by a link in it: what is there is not the
    folder's own.
    """
    uri = join(folder, *path.split("/"))
    if not is_below(path):
        return
    if is_local(folder):
        root, parent = (
            os.path.realpath(local_path(folder)),
            os.path.realpath(os.path.dirname(local_path(uri))),
        )
        if os.path.commonpath([root, parent]) != root:
            return
    delete(uri)
