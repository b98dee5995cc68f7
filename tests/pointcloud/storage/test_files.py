"""Storage: what patterns mean, and files that are whole or not there, on disk and in a bucket alike."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from pointcloud.errors import StorageError
from pointcloud.storage import files, filesystem, inputs
from tests.support.clouds import assert_one_sentence

LAS = (".las", ".laz")
TREE = (
    "a.laz", "b.LAZ", "c.las", "notes.txt", ".hidden.laz", "sub/a.laz", "sub/d.laz", "sub/deep/e.las",
    ".cache/f.laz", "sub/.cache/g.laz", "other/a.laz",
)  # fmt: skip


def plant(folder: Path) -> Path:
    for name in TREE:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return plant(tmp_path / "tree")


def names(*patterns: str | Path) -> list[str]:
    return [source.name for source in inputs.expand([str(p) for p in patterns], LAS)]


@pytest.fixture(params=["path", "file", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder by path, by file:// URI, and on a filesystem that is not the local one."""
    if request.param == "path":
        return str(tmp_path)
    if request.param == "file":
        return f"file://{tmp_path}"
    bucket = fs.SubTreeFileSystem(str(tmp_path.parent), fs.LocalFileSystem())
    known = files.resolve

    def resolve(uri: str) -> tuple[fs.FileSystem, str]:
        return (bucket, unquote(uri[len("bucket://") :])) if uri.startswith("bucket://") else known(uri)

    monkeypatch.setattr(files, "resolve", resolve)
    return f"bucket://{tmp_path.name}"


# --- what a pattern means


def test_a_file_a_folder_and_globs(tree: Path) -> None:
    assert names(tree / "a.laz") == ["a.laz"]
    assert names(tree) == [
        "a.laz", "b.LAZ", "c.las", "other/a.laz", "sub/a.laz", "sub/d.laz", "sub/deep/e.las",
    ]  # fmt: skip
    assert names(tree / "*.laz") == ["a.laz"]
    assert names(tree / "?.la[sz]") == ["a.laz", "c.las"]
    assert names(tree / "*/a.laz") == ["other/a.laz", "sub/a.laz"]
    assert names(tree / "**" / "a.laz") == ["a.laz", "other/a.laz", "sub/a.laz"]
    assert names(tree / "sub" / "**" / "*.las") == ["deep/e.las"]


def test_a_star_stays_inside_its_folder(tree: Path) -> None:
    with pytest.raises(StorageError, match="no file matches"):
        names(tree / "sub*.laz")


def test_what_is_found_can_be_read(tree: Path) -> None:
    for source in inputs.expand([str(tree)], LAS):
        assert files.read_bytes(source.uri) == source.name.encode()


component = st.sampled_from(
    ["*", "**", "?.laz", "[ab].laz", "*.la*", "sub", "deep", "a.laz", "[!a]*", "o?her"]
)


@given(pattern=st.lists(component, min_size=1, max_size=4).map("/".join))
def test_globs_mean_what_python_globs_mean(pattern: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "glob"
    if not folder.exists():
        plant(folder)
    expected = {
        os.path.relpath(p, folder)
        for p in glob.glob(f"{folder}/{pattern}", recursive=True)
        if os.path.isfile(p) and (pattern != "**" or p.lower().endswith(LAS))
    }
    if any(c in pattern for c in "*?["):
        first = next(i for i, part in enumerate(pattern.split("/")) if any(c in part for c in "*?["))
    else:
        first = len(pattern.split("/")) - 1
    base = "/".join(pattern.split("/")[:first])
    if (folder / pattern).is_dir():
        return  # a folder by its plain name: test_a_file_a_folder_and_globs
    if not expected:
        with pytest.raises(StorageError):
            names(folder / pattern)
        return
    assert {os.path.join(base, name) for name in names(folder / pattern)} == expected


def test_hidden_files_and_folders_are_left_out_unless_asked_for(tree: Path) -> None:
    assert not [n for n in names(tree) + names(tree / "**" / "*.laz") if "hidden" in n or "cache" in n]
    assert names(tree / ".hidden.laz") == [".hidden.laz"]
    assert names(tree / ".cache" / "*.laz") == ["f.laz"]


def test_a_file_in_the_making_is_no_input(tree: Path) -> None:
    with files.staged(str(tree / "new.laz")) as part:
        part.write_bytes(b"half")
        assert names(tree / "*") == ["a.laz", "b.LAZ", "c.las", "notes.txt"]


@pytest.mark.parametrize("pattern", ["nowhere", "nowhere/*.laz", "*.ply", "**/*.ply", "empty"])
def test_nothing_there_is_said(tree: Path, pattern: str) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(StorageError) as error:
        names(tree / pattern)
    assert_one_sentence(error, pattern)


def test_two_files_of_one_name_are_refused(tree: Path) -> None:
    with pytest.raises(StorageError, match=r"would both be called 'a\.laz'") as error:
        names(tree / "sub" / "a.laz", tree / "other" / "a.laz")
    assert_one_sentence(error, "other/a.laz")


def test_one_file_named_twice_is_one_file(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert names("a.laz", tree / "a.laz", "./a.laz", "*.laz", f"file://{tree}/a.laz") == ["a.laz"]


def test_brackets_in_a_path_that_exists_are_no_wildcards(tmp_path: Path) -> None:
    path = tmp_path / "site [1]" / "scan[2].laz"
    path.parent.mkdir()
    path.write_text("x")
    assert names(path) == ["scan[2].laz"]
    assert names(path.parent) == ["scan[2].laz"]


def test_an_unknown_scheme_is_said() -> None:
    with pytest.raises(StorageError) as error:
        files.exists("ftp://host/tiles")
    assert_one_sentence(error, "ftp://host/tiles")


@pytest.mark.parametrize("name", ["plain.laz", "with space.laz", "50%.laz", "a%20b.laz", "ä+#&.laz"])
def test_names_survive_being_part_of_a_uri(tmp_path: Path, name: str) -> None:
    root = f"file://{tmp_path}"
    files.write_bytes(files.join(root, "my tiles", name), b"x")
    assert (tmp_path / "my tiles" / name).read_bytes() == b"x"
    for pattern in (root, f"{root}/my tiles", f"{root}/my%20tiles/*.laz", f"{root}/*/*.laz"):
        (source,) = inputs.expand([pattern], LAS)
        assert source.name.endswith(name)
        assert files.read_bytes(source.uri) == b"x"
    assert files.name_of(source.uri) == name


# --- patience


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(filesystem, "_PATIENCE_SECONDS", 0.2)


def failing(times: int, message: str) -> tuple[list[int], Callable[[], str]]:
    calls: list[int] = []

    def operation() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise OSError(message)
        return "done"

    return calls, operation


def test_what_passes_is_waited_for_and_said(impatient: None, caplog: pytest.LogCaptureFixture) -> None:
    calls, operation = failing(2, "AWS Error NETWORK_CONNECTION during GetObject operation")
    assert filesystem.attempt("read", "s3://b/x", operation) == "done"
    assert len(calls) == 3
    assert "cannot read s3://b/x for 0 s, trying for 0 s more: AWS Error NETWORK_CONNECTION" in caplog.text


def test_what_stays_away_is_given_up_and_what_is_refused_at_once(impatient: None) -> None:
    calls, operation = failing(1000, "AWS Error SLOW_DOWN during PutObject operation")
    with pytest.raises(StorageError, match="tried for") as error:
        filesystem.attempt("write", "s3://b/x", operation)
    assert_one_sentence(error, "s3://b/x")
    assert 2 < len(calls) < 10
    for message, expected in (
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body.", "access is refused"),
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation", "no such bucket"),
        ("[Errno 28] No space left on device", "No space left"),
    ):
        calls, operation = failing(1000, message)
        with pytest.raises(StorageError, match=expected) as error:
            filesystem.attempt("write", "s3://b/x", operation)
        assert_one_sentence(error, "s3://b/x")
        assert len(calls) == 1


# --- reading and writing


def test_every_kind_of_place_reads_what_was_written(root: str) -> None:
    uri = files.join(root, "record.json")
    assert not files.exists(uri)
    assert files.size(uri) == 0
    files.write_json(uri, {"b": [1, None], "a": "ä"})
    assert files.exists(uri)
    assert files.read_json(uri) == {"a": "ä", "b": [1, None]}
    assert files.size(uri) == len(files.read_bytes(uri))
    assert [s.name for s in inputs.expand([root], (".json",))] == ["record.json"]
    files.delete(uri)
    files.delete(uri)
    assert not files.exists(uri)


def test_staged_replaces_at_once_and_leaves_nothing_else(root: str, tmp_path: Path) -> None:
    uri = files.join(root, "x.bin")
    files.write_bytes(uri, b"old")
    with files.staged(uri) as part:
        part.write_bytes(b"new, and longer")
        assert files.read_bytes(uri) == b"old"
    assert files.read_bytes(uri) == b"new, and longer"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]
    assert not part.exists()


def test_who_reads_the_old_file_reads_it_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        files.write_bytes(str(path), b"new, and longer")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new, and longer"


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, StorageError])
def test_after_an_error_the_old_file_stands_and_no_part_is_left(
    root: str, tmp_path: Path, kind: type[BaseException]
) -> None:
    uri = files.join(root, "x.bin")
    parts = []

    def fail_halfway() -> None:
        with files.staged(uri) as part:
            parts.append(part)
            part.write_bytes(b"half")
            raise kind

    for before in ((), ("x.bin",)):
        with pytest.raises(kind):
            fail_halfway()
        assert tuple(p.name for p in tmp_path.iterdir()) == before
        assert not parts[-1].exists()
        files.write_bytes(uri, b"old")
        assert files.read_bytes(uri) == b"old"


def test_staged_makes_folders_and_two_writers_do_not_meet(tmp_path: Path) -> None:
    uri = str(tmp_path / "a" / "b" / "x")
    with files.staged(uri) as one, files.staged(uri) as other:
        one.write_bytes(b"one")
        other.write_bytes(b"other")
    assert files.read_bytes(uri) == b"one"
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["x"]


def test_places_that_cannot_be_written_are_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    for place in ("file/below", "folder"):
        with pytest.raises(StorageError) as error:
            files.write_bytes(str(tmp_path / place), b"x")
        assert_one_sentence(error, place)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder", "full"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\x00", b"\x89PNG\r\n", b"[" * 100_000], ids=lambda c: repr(c[:4])
)
def test_garbage_is_no_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "garbage.json"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="is not JSON") as error:
        files.read_json(str(path))
    assert_one_sentence(error, "garbage.json")


def test_missing_files_and_folders_cannot_be_read(tmp_path: Path) -> None:
    for place in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(StorageError) as error:
            files.read_json(str(place))
        assert_one_sentence(error, str(place))


def test_equal_records_give_equal_bytes_and_nan_is_refused(tmp_path: Path) -> None:
    one, other, bad = (str(tmp_path / n) for n in ("one", "other", "bad"))
    files.write_json(one, {"a": 1, "b": {"d": 2, "c": 3}})
    files.write_json(other, {"b": {"c": 3, "d": 2}, "a": 1})
    assert files.read_bytes(one) == files.read_bytes(other)
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(bad, {"a": float("nan")})
    assert not files.exists(bad)


def test_content_hash_covers_every_byte(root: str) -> None:
    uri = files.join(root, "large.bin")
    content = bytearray(5 << 20)
    files.write_bytes(uri, content)
    assert files.content_hash(uri) == hashlib.blake2b(content, digest_size=16).hexdigest()
    content[-1] = 1
    files.write_bytes(uri, content)
    assert files.content_hash(uri) == hashlib.blake2b(content, digest_size=16).hexdigest()


def test_a_fingerprint_is_of_the_bytes_and_of_nothing_else(root: str, tmp_path: Path) -> None:
    one, other = files.join(root, "one"), files.join(root, "other")
    files.write_bytes(one, b"same bytes")
    files.write_bytes(other, b"same bytes")
    os.utime(tmp_path / "other", (1, 1))
    assert files.fingerprint(one) == files.fingerprint(other)
    assert files.fingerprint(one) == f"blake2b:{files.content_hash(one)}"
    # An edit that keeps size and time.
    (tmp_path / "other").write_bytes(b"sane bytes")
    os.utime(tmp_path / "other", (1, 1))
    assert files.fingerprint(one) != files.fingerprint(other)
    with pytest.raises(StorageError) as error:
        files.fingerprint(files.join(root, "missing"))
    assert_one_sentence(error, "missing")


def test_same_sees_through_spelling_and_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    for spelling in ("a", "./a", f"file://{tmp_path}/a", "link", "../" + tmp_path.name + "/a"):
        assert files.same(str(tmp_path / "a"), spelling)
    assert not files.same("a", "b")


def test_local_places_are_known_as_local(tmp_path: Path) -> None:
    assert files.is_local(str(tmp_path))
    assert files.is_local(f"file://{tmp_path}")
    assert files.is_local("~/scans")
    assert files.resolve("~/scans")[1] == str(Path.home() / "scans")


def test_folders_behind_links_are_listed_and_a_circle_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.las").write_bytes(b"x")
    for name, target in (
        ("b", tmp_path / "a"),
        ("c", tmp_path / "a"),
        ("a/up", tmp_path),
        ("gone", tmp_path / "no"),
    ):
        (tmp_path / name).symlink_to(target)
    names = [file.name for file in files.list_files(str(tmp_path))]
    assert [name for name in names if "up" not in name] == ["a/1.las", "b/1.las", "c/1.las"]


@pytest.mark.parametrize("path", ["..", "../a", "a/../../b", "/a", "a//b", "", "a/./b", "a\0b"])
def test_nothing_outside_a_folder_is_removed(tmp_path: Path, path: str) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"x")
    folder = tmp_path / "folder"
    folder.mkdir()
    files.delete_below(str(folder), path)
    assert not files.is_below(path)
    assert (tmp_path / "a").exists()
    assert (tmp_path / "b").exists()
    (folder / "c").write_bytes(b"x")
    files.delete_below(str(folder), "c")
    files.delete_below(str(folder), "c")
    assert not (folder / "c").exists()
