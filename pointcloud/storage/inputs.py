"""From paths, folders and globs to the inputs of a run, each with the name that its outputs get."""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

from pyarrow import fs

from pointcloud.errors import StorageError
from pointcloud.storage.files import LONGEST_NAME_BYTES, exists, list_files, name_of, path_type, same
from pointcloud.storage.filesystem import is_utf8, printable

_WILDCARDS = "*?["
_LONGEST_FOLDER_BYTES = 255


@dataclass(frozen=True)
class Source:
    """One input found in storage.

    Attributes:
        uri: where it is.
        name: relative to what the user asked for; outputs are named after it.
        fault: why it is set aside for its name, one sentence; empty where it can be used.
    """

    uri: str
    name: str
    fault: str = ""


def source_of(uri: str, name: str) -> Source:
    """The input at a URI; set aside, under a name that can be written, where its own cannot be worked with."""
    if not is_utf8(uri):
        shown = printable(uri)
        return Source(
            shown,
            _shortened(printable(name)),
            f"the name of '{shown}' is not UTF-8, so it is not read; rename it.",
        )
    *folders, last = (len(part.encode()) for part in name.split("/"))
    if last > LONGEST_NAME_BYTES or max(folders, default=0) > _LONGEST_FOLDER_BYTES:
        return Source(
            uri, _shortened(name),
            f"the name of {uri!r} has {max([last, *folders])} bytes, and {LONGEST_NAME_BYTES} are the most that "
            "outputs can be named after; rename it.",
        )  # fmt: skip
    return Source(uri, name)


def _shortened(name: str) -> str:
    """A name of the same folders and suffix, each part short enough; names that differ still do."""
    parts = []
    for part in name.split("/"):
        if len(part.encode()) > LONGEST_NAME_BYTES:
            digest = hashlib.blake2b(part.encode(), digest_size=4).hexdigest()
            start, end = (
                piece.decode(errors="ignore") for piece in (part.encode()[:120], part.encode()[-20:])
            )
            part = f"{start}…{digest}…{end}"
        parts.append(part)
    return "/".join(parts)


def expand(patterns: list[str], suffixes: tuple[str, ...]) -> list[Source]:
    """The files meant by paths, folders and globs, sorted by name.

    A folder means the files in it that end in one of `suffixes`; a glob may use ``*``, ``?``, ``[…]`` and
    ``**`` for any depth. What a leading dot hides in them is left out. Names are relative to the folder, or
    to the part of the glob before its first wildcard, so that a file keeps its name when others come and go.

    Raises:
        StorageError: nothing at a path, nothing matched, or two files with one name.
    """
    sources = [source for pattern in patterns for source in _expand_one(pattern, suffixes)]
    return sorted(unique(sources), key=lambda source: source.name)


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
    if not is_utf8(pattern):
        return _expand_strange(pattern, suffixes)
    if not is_glob(pattern):
        kind = path_type(pattern)
        if kind == fs.FileType.File:
            return [source_of(pattern, name_of(pattern))]
        if kind == fs.FileType.NotFound:
            raise StorageError(f"nothing at {pattern!r}; give an existing file, folder or glob.")
        base_uri, match = pattern, "**"
    else:
        parts = pattern.split("/")
        first = next(i for i, part in enumerate(parts) if any(c in part for c in _WILDCARDS))
        base_uri = "/".join(parts[:first]) or ("/" if pattern.startswith("/") else ".")
        match = "/".join(parts[first:])
    sources = [
        source_of(file.uri, file.name)
        for file in list_files(base_uri, recursive="/" in match or "**" in match)
        if _matches(file.name, match) and (match != "**" or file.name.lower().endswith(suffixes))
    ]
    if not sources:
        raise StorageError(
            f"no file matches {pattern!r}; expected files ending in {' or '.join(suffixes)}: check the path "
            "and quote globs in the shell."
        )
    return sources


def _expand_strange(path: str, suffixes: tuple[str, ...]) -> list[Source]:
    """The inputs at a path that is not UTF-8, each set aside: shells expand a glob to such names too."""
    if os.path.isfile(path):
        return [source_of(path, os.path.basename(path))]
    names = [file.name for file in list_files(path) if file.name.lower().endswith(suffixes)]
    if not names:
        raise StorageError(f"nothing at '{printable(path)}', whose name is not UTF-8; check it or rename it.")
    return [source_of(os.path.join(path, name), name) for name in names]


def _matches(name: str, pattern: str) -> bool:
    """Glob match part by part: ``*`` stays inside a folder, ``**`` crosses any number of them."""
    names, patterns = name.split("/"), pattern.split("/")
    if patterns[-1] == "**":
        patterns.append("*")
    matched = {0}  # how many of the names the patterns so far can stand for
    for part in patterns:
        if part == "**":
            matched = set(range(min(matched, default=len(names)), len(names)))
        else:
            matched = {n + 1 for n in matched if n < len(names) and fnmatch.fnmatchcase(names[n], part)}
    return len(names) in matched
