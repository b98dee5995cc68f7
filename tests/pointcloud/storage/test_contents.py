"""A file is read again where it may have changed, and only there."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pointcloud.errors import StorageError
from pointcloud.storage import contents, files
from pointcloud.storage.contents import Content, content_of, read_contents, write_contents

FIRST, OTHER = b"first content", b"other content"
HOUR_NS = 3600 * 10**9


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.las"
    path.write_bytes(FIRST)
    return path


def settled(content: Content) -> Content:
    """As if it had been read an hour after the file was written."""
    return Content(
        fingerprint=content.fingerprint, stamp=content.stamp, read_ns=max(content.stamp[1:3]) + HOUR_NS
    )


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose bytes are read from now on."""
    read: list[str] = []
    fingerprint = files.fingerprint

    def noted(uri: str) -> str:
        read.append(uri)
        return fingerprint(uri)

    monkeypatch.setattr(files, "fingerprint", noted)
    return read


def test_a_file_that_looks_the_same_is_not_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = settled(content_of(str(file)))
    read = reads(monkeypatch)
    assert content_of(str(file), before) == before
    assert not read


def touch(file: Path) -> None:
    os.utime(file)


def set_another_time(file: Path) -> None:
    os.utime(file, ns=(0, 0))


def copy_with_times(file: Path) -> None:
    """As `rsync -a` and `cp -p` do: the same content and time of writing in another file."""
    shutil.copy2(file, copy := file.with_name("copy"))
    os.replace(copy, file)


def restore(file: Path) -> None:
    """A backup with another content, the same size and the same time of writing takes the place of the file."""
    status = file.stat()
    (backup := file.with_name("backup")).write_bytes(OTHER)
    os.utime(backup, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(backup, file)


def overwrite_in_place(file: Path) -> None:
    """Another content of the same size in the same file, whose time of writing is set back then."""
    status = file.stat()
    file.write_bytes(OTHER)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def append(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"more")


def link_to_another(file: Path) -> None:
    (other := file.with_name("other")).write_bytes(OTHER)
    file.unlink()
    file.symlink_to(other)


@pytest.mark.parametrize(
    "change",
    [touch, set_another_time, copy_with_times, restore, overwrite_in_place, append, link_to_another],
    ids=lambda change: change.__name__,
)
def test_what_may_have_changed_is_read_again(file: Path, change: Callable[[Path], None]) -> None:
    before = settled(content_of(str(file)))
    time.sleep(0.02)  # longer than the step of a kernel's clock, in which another write could go unseen
    change(file)
    now = content_of(str(file), before)
    assert now.fingerprint == files.fingerprint(str(file))
    assert now.stamp != before.stamp
    assert (now.fingerprint == before.fingerprint) == (file.read_bytes() == FIRST)


def test_a_file_written_just_before_it_was_read_is_read_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content_of(str(file))
    read = reads(monkeypatch)
    content_of(str(file), before)
    assert read == [str(file)]
    seconds_later = Content(
        fingerprint=before.fingerprint, stamp=before.stamp, read_ns=max(before.stamp[1:3]) + 3 * 10**9
    )
    content_of(str(file), seconds_later)
    assert len(read) == 2, "a file system may count in steps of seconds"


def test_a_file_from_the_future_is_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time_ns() + 24 * HOUR_NS
    os.utime(file, ns=(later, later))
    before = content_of(str(file))
    read = reads(monkeypatch)
    content_of(str(file), before)
    assert read


def test_a_file_that_changes_while_it_is_read_stands_for_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = files.fingerprint

    def read_slowly(uri: str) -> str:
        found = fingerprint(uri)
        append(Path(uri))
        return found

    monkeypatch.setattr(files, "fingerprint", read_slowly)
    content = content_of(str(file))
    assert content.stamp == ()
    assert not content.stands_for(())


def test_a_file_that_is_not_there_is_not_reached(file: Path) -> None:
    before = settled(content_of(str(file)))
    file.unlink()
    with pytest.raises(StorageError, match="nothing at"):
        content_of(str(file), before)


def test_what_was_noted_is_read(tmp_path: Path, file: Path) -> None:
    noted = {"sub/a b.las": {"": content_of(str(file))}, "room": {"wall_1.txt": content_of(str(file))}}
    assert read_contents(str(tmp_path), "segment") == {}
    write_contents(str(tmp_path), "segment", noted)
    assert read_contents(str(tmp_path), "segment") == noted
    assert read_contents(str(tmp_path), "preprocess") == {}


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"[]", b"{}", b"null", b'{"version": 1}', b'{"version": 1, "scans": []}', b'{"version": 0, "scans": {}}',
        b'{"version": 1, "scans": {"a": {"": {}}}}', b'{"version": 1, "scans": {"a": {"": null}}}',
        b'{"version": 1, "scans": {"a": {"": {"fingerprint": 1, "stamp": [1, 2, 3, 4], "read_ns": 1}}}}',
        b'{"version": 1, "scans": {"a": {"": {"fingerprint": "f", "stamp": [1, 2, 3], "read_ns": 1}}}}',
        b'{"version": 1, "scans": {"a": {"": {"fingerprint": "f", "stamp": ["x", 2, 3, 4], "read_ns": 1}}}}',
    ],
)  # fmt: skip
def test_a_damaged_note_is_as_good_as_none(tmp_path: Path, file: Path, damage: bytes) -> None:
    write_contents(str(tmp_path), "segment", {"a": {"": content_of(str(file))}})
    (tmp_path / "ledger" / "segment.contents.json").write_bytes(damage)
    assert read_contents(str(tmp_path), "segment") == {}


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_a_copy_by_rsync_is_read_again(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = settled(content_of(str(file)))
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.las").write_bytes(OTHER)
    status = file.stat()
    os.utime(tmp_path / "source" / "a.las", ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    subprocess.run(
        ["rsync", "-a", f"{tmp_path}/source/a.las", str(file)], check=True, timeout=60, capture_output=True
    )
    assert content_of(str(file), before).fingerprint == files.fingerprint(str(file)) != before.fingerprint


def test_the_margin_is_longer_than_the_step_of_any_file_system() -> None:
    assert contents._MARGIN_NS >= 2 * 10**9
