"""A rerun does what changed, and nothing else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pointcloud.storage import files, ledger
from pointcloud.storage.ledger import (
    DONE,
    QUARANTINED,
    Plan,
    Record,
    discard,
    key_of,
    output_uri,
    plan,
    read_all,
)


@pytest.fixture
def done(tmp_path: Path) -> Record:
    output = tmp_path / "a.parquet"
    output.write_bytes(b"x")
    record = Record(
        stage="preprocess",
        scan="sub/a b.laz",
        key="key",
        state=DONE,
        points_in=10,
        points_out=5,
        seconds=0.5,
        path=output.name,
        details={"n": [1]},
    )
    ledger.write(str(tmp_path), record)
    return record


def is_kept(root: Path, stage: str, scan: str, key: str) -> bool:
    return scan in plan(str(root), {scan: key}, read_all(str(root), stage)).unchanged


def test_finished_work_is_found_whole(tmp_path: Path, done: Record) -> None:
    assert read_all(str(tmp_path), "preprocess") == {done.scan: done}
    assert is_kept(tmp_path, "preprocess", "sub/a b.laz", "key")


@pytest.mark.parametrize(
    ("stage", "scan", "key"),
    [
        ("preprocess", "sub/a b.laz", "other"),
        ("segment", "sub/a b.laz", "key"),
        ("preprocess", "b.laz", "key"),
    ],
)
def test_another_key_stage_or_scan_is_not_done(
    tmp_path: Path, done: Record, stage: str, scan: str, key: str
) -> None:
    assert not is_kept(tmp_path, stage, scan, key)


def test_a_lost_output_is_not_done(tmp_path: Path, done: Record) -> None:
    (tmp_path / done.path).unlink()
    assert not is_kept(tmp_path, done.stage, done.scan, done.key)


@pytest.mark.parametrize("change", [{"state": QUARANTINED, "error": "bad."}, {"path": ""}])
def test_quarantined_or_without_output_is_not_done(
    tmp_path: Path, done: Record, change: dict[str, str]
) -> None:
    ledger.write(str(tmp_path), replace(done, **change))
    assert not is_kept(tmp_path, done.stage, done.scan, done.key)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"stage": 1}', b"\xff\xfe", b'{"unknown": 1}', b'{"output": "a"}', b"null"],
)
def test_a_damaged_record_is_not_done(tmp_path: Path, done: Record, content: bytes) -> None:
    (tmp_path / "ledger" / "preprocess" / "sub" / "a b.laz.json").write_bytes(content)
    assert not is_kept(tmp_path, done.stage, done.scan, done.key)


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../a.parquet"}, {"path": "/etc/passwd"}, {"path": "shards/../../a.parquet"}, {"path": 1},
        {"scan": "../../elsewhere"}, {"scan": "b.laz"}, {"stage": "segment"}, {"points_in": "many"}, {"details": None},
        {"details": []}, {"output": "/elsewhere/../a.parquet", "scan": "sub/a b.laz"}, {"output": 1}, {"output": ".."},
    ],
)  # fmt: skip
def test_a_record_of_something_else_or_outside_is_none(
    tmp_path: Path, done: Record, change: dict[str, object]
) -> None:
    uri = str(tmp_path / "ledger/preprocess/sub/a b.laz.json")
    files.write_json(uri, files.read_json(uri) | change)
    assert read_all(str(tmp_path), "preprocess") == {}


def test_a_ledger_goes_where_its_folder_goes(tmp_path: Path) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "sub" / "second")
    record = add(first, "sub/a.laz")
    shutil.copytree(first, second)
    records = read_all(second, "preprocess")
    assert plan(second, {"sub/a.laz": "1"}, records).unchanged == ("sub/a.laz",)
    discard(second, records["sub/a.laz"])
    assert read_all(second, "preprocess") == {}
    assert not files.exists(output_uri(second, record))
    assert plan(first, {"sub/a.laz": "1"}, read_all(first, "preprocess")).unchanged == ("sub/a.laz",)


@pytest.mark.parametrize(
    ("stage", "scan", "output", "details", "path"),
    [
        ("preprocess", "sub/a b.laz", "/first/shards/sub/a b.laz.parquet", {"path": "shards/sub/a b.laz.parquet"},
         "shards/sub/a b.laz.parquet"),
        ("segment", "sub/a b.npz", "/first/sub/a b.ply", {}, "sub/a b.ply"),
        ("segment", "a b.laz", "s3://bucket/first/a%20b.laz", {}, "a b.laz"),
        ("segment", "a.laz", "first/a.laz", {}, "a.laz"),
        ("segment", "a.laz", "", {}, ""),
    ],
)  # fmt: skip
def test_records_with_uris_of_an_earlier_version_are_read(
    tmp_path: Path, stage: str, scan: str, output: str, details: dict[str, str], path: str
) -> None:
    fields = {"stage": stage, "scan": scan, "key": "1", "state": DONE, "output": output, "details": details}
    files.write_json(str(tmp_path / "ledger" / stage / f"{scan}.json"), fields)
    (record,) = read_all(str(tmp_path), stage).values()
    assert (record.scan, record.path) == (scan, path)


def test_what_a_link_leads_to_is_not_removed(tmp_path: Path) -> None:
    elsewhere = add(str(tmp_path / "elsewhere"), "a.laz")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "shards").symlink_to(tmp_path / "elsewhere" / "shards")
    ledger.write(str(linked), elsewhere)
    discard(str(linked), elsewhere)
    assert (tmp_path / "elsewhere" / elsewhere.path).exists()
    assert read_all(str(linked), "preprocess") == {}


@pytest.mark.parametrize("part", [Path("a"), object(), np.int64(1)])
def test_what_json_cannot_hold_has_no_key(part: object) -> None:
    with pytest.raises(TypeError):
        key_of("a", part)


def test_keys_are_stable_and_hear_every_part() -> None:
    assert key_of("a", {"x": 1, "y": (2, 3)}) == key_of("a", {"y": [2, 3], "x": 1})
    keys = [
        key_of("a", 1),
        key_of("a", 2),
        key_of("a", "1"),
        key_of("a1"),
        key_of(["a", 1]),
        key_of("a", 1, None),
    ]
    assert len(set(keys)) == len(keys)


@pytest.fixture(params=["local", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "data set")
    return files.join(request.getfixturevalue("bucket"), "data set")


def add(root: str, scan: str, key: str = "1", state: str = DONE, stage: str = "preprocess") -> Record:
    path = f"shards/{scan}.parquet" if state == DONE else ""
    record = Record(stage=stage, scan=scan, key=key, state=state, path=path)
    if path:
        files.write_bytes(output_uri(root, record), b"x")
    ledger.write(root, record)
    return record


def test_all_records_of_a_stage_are_read_and_damaged_ones_left_out(root: str) -> None:
    assert read_all(root, "preprocess") == {}
    names = ("a.laz", "sub/a.laz", "sub/deep/a b%20.laz", ".hidden.laz")
    records = {scan: add(root, scan) for scan in names}
    add(root, "other.laz", stage="segment")
    files.write_bytes(files.join(root, "ledger", "preprocess", "damaged.laz.json"), b'{"stage"')
    files.write_bytes(files.join(root, "ledger", "preprocess", ".a.laz.json.12345678.part"), b"half")
    assert read_all(root, "preprocess") == records


def test_a_plan_has_every_scan_in_one_group(root: str) -> None:
    add(root, "same.laz")
    add(root, "sub/same.laz")
    add(root, "edited.laz")
    add(root, "gone.laz")
    add(root, "bad.laz", state=QUARANTINED)
    add(root, "mended.laz", state=QUARANTINED)
    files.delete(output_uri(root, add(root, "sub/lost.laz")))
    keys = dict.fromkeys(
        ("sub/same.laz", "same.laz", "edited.laz", "bad.laz", "mended.laz", "sub/lost.laz", "new.laz"), "1"
    )
    keys |= {"edited.laz": "2", "mended.laz": "2"}
    found = plan(root, keys, read_all(root, "preprocess"))
    assert found == Plan(
        new=("new.laz",), changed=("edited.laz", "mended.laz"), lost=("sub/lost.laz",), quarantined=("bad.laz",),
        unchanged=("same.laz", "sub/same.laz"), gone=("gone.laz",),
    )  # fmt: skip
    assert found.todo == ("bad.laz", "edited.laz", "mended.laz", "new.laz", "sub/lost.laz")
    assert plan(root, keys, read_all(root, "preprocess"), retry_quarantined=False).todo == (
        "edited.laz", "mended.laz", "new.laz", "sub/lost.laz",
    )  # fmt: skip


def test_a_plan_is_read_at_a_glance() -> None:
    found = Plan(new=tuple(f"{n:02}|x.laz" for n in range(25)), unchanged=("a.laz",))
    assert str(found) == "25 scans to do (25 new, 1 unchanged)"
    assert str(Plan()) == "0 scans to do (no scans)"
    assert str(Plan(new=("a.laz",))) == "1 scan to do (1 new)"
    table = found.to_markdown()
    assert "| 25 | new | read | `00\\|x.laz`, " in table
    assert "`19\\|x.laz` and 5 more |" in table
    assert "20|" not in table
