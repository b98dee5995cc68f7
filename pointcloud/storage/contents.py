"""What files held when they were last read, so that a file that looks unchanged need not be read again.

As git's index does it: size, times and inode of a file on a disk stand for its content. The time of the last change of
the inode (ctime) is among them, which no program can set: a file that is restored from a backup, or overwritten in
place with its old time of writing, looks changed. A file written so shortly before it was read that another write could
have got the same times is read again (https://git-scm.com/docs/racy-git). In a bucket the ETag stands for the content,
which costs a request and reads nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pyarrow import fs

from pointcloud.errors import StorageError
from pointcloud.storage import files
from pointcloud.storage.filesystem import attempt, resolve

VERIFY_CONTENT_HELP = (
    "Read every byte of all scans to see what changed, also of those whose size, times and inode are those of the last "
    "run."
)
_VERSION = 1  # of the file; what another version has written is not used
_MARGIN_NS = 10_000_000_000
"""Longer than the step of the times of any file system (FAT: 2 s), and than clocks of file servers differ by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """One file when it was read.

    Attributes:
        fingerprint: as `storage.files.fingerprint` gives it.
        stamp: bytes, time of writing (ns since 1970), time of the inode's last change (ns), inode. Empty: not known, as
            for a file in a bucket or one that changed while it was read; such a file is read again.
        read_ns: when reading began, ns since 1970 by the clock of this machine.
    """

    fingerprint: str
    stamp: tuple[int, ...] = ()
    read_ns: int = 0

    def stands_for(self, stamp: tuple[int, ...]) -> bool:
        """Whether a file that looks like this has this content for certain."""
        return bool(stamp) and stamp == self.stamp and max(stamp[1:3]) + _MARGIN_NS <= self.read_ns


def content_of(uri: str, before: Content | None = None) -> Content:
    """What a file holds; it is read only where it does not look as it did before.

    Args:
        before: of the same file, when it was last read; None: it is read in any case.

    Raises:
        StorageError: nothing there, or not to be reached.
    """
    filesystem, path = resolve(uri)
    if not isinstance(filesystem, fs.LocalFileSystem):
        return Content(fingerprint=files.fingerprint(uri))
    stamp, now = _stamp(uri, path), time.time_ns()
    if before is not None and before.stands_for(stamp):
        return before
    fingerprint = files.fingerprint(uri)
    return Content(fingerprint=fingerprint, stamp=stamp if _stamp(uri, path) == stamp else (), read_ns=now)


def _stamp(uri: str, path: str) -> tuple[int, ...]:
    status = attempt("read", uri, lambda: os.stat(path))
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


Contents = Mapping[str, Content]
"""The files that a scan consists of -> what they held; the scan's own file is called ""."""


def read_contents(root: str, stage: str) -> dict[str, Contents]:
    """Scan -> its files when a stage last read them; none where nothing was noted, or the note is damaged.

    Args:
        root: the folder that the ledger lies in.
        stage: of the ledger.

    Raises:
        StorageError: the storage cannot be reached.
    """
    uri = _uri(root, stage)
    if not files.exists(uri):
        return {}
    try:
        record = files.read_json(uri)
        if record["version"] != _VERSION:
            return {}
        return {
            scan: {name: _content(fields) for name, fields in contents.items()}
            for scan, contents in record["scans"].items()
        }
    except (StorageError, TypeError, AttributeError, KeyError, ValueError):
        return {}


def write_contents(root: str, stage: str, contents: Mapping[str, Contents]) -> None:
    """Note what was read, in place of what was noted before.

    Raises:
        StorageError: it cannot be written.
    """
    scans = {scan: {name: asdict(content) for name, content in of.items()} for scan, of in contents.items()}
    files.write_json(_uri(root, stage), {"version": _VERSION, "scans": scans})


def _uri(root: str, stage: str) -> str:
    return files.join(root, "ledger", f"{stage}.contents.json")


def _content(fields: Mapping[str, Any]) -> Content:
    """Raises TypeError, ValueError or KeyError for what is no record of a content."""
    fingerprint, stamp = fields["fingerprint"], tuple(int(number) for number in fields["stamp"])
    if not isinstance(fingerprint, str) or len(stamp) != 4:
        raise ValueError("no record of a content")
    return Content(fingerprint=fingerprint, stamp=stamp, read_ns=int(fields["read_ns"]))
