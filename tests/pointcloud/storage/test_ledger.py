"""A rerun does what changed, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pointcloud.storage import files, ledger
from pointcloud.storage.ledger import DONE, QUARANTINED, Plan, Record, key_of, plan, read_all


@pytest.fixture
def done(tmp_path: Path) -> Record:
    output = tmp_path / "a.parquet"
    output.write_bytes(b"x")
    record = Record(
        "preprocess", "sub/a b.laz", "key", DONE, 10, 5, 0.5, output=str(output), details={"n": [1]}
    )
    ledger.write(str(tmp_path), record)
    return record


def is_kept(root: Path, stage: str, scan: str, key: str) -> bool:
    return scan in plan({scan: key}, read_all(str(root), stage)).unchanged


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
    files.delete(done.output)
    assert not is_kept(tmp_path, done.stage, done.scan, done.key)


@pytest.mark.parametrize("change", [{"state": QUARANTINED, "error": "bad."}, {"output": ""}])
def test_quarantined_or_without_output_is_not_done(
    tmp_path: Path, done: Record, change: dict[str, str]
) -> None:
    ledger.write(str(tmp_path), replace(done, **change))
    assert not is_kept(tmp_path, done.stage, done.scan, done.key)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"stage": 1}', b"\xff\xfe", b'{"unknown": 1}'])
def test_a_damaged_record_is_not_done(tmp_path: Path, done: Record, content: bytes) -> None:
    (tmp_path / "ledger" / "preprocess" / "sub" / "a b.laz.json").write_bytes(content)
    assert not is_kept(tmp_path, done.stage, done.scan, done.key)


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
    output = files.join(root, "shards", f"{scan}.parquet") if state == DONE else ""
    if output:
        files.write_bytes(output, b"x")
    record = Record(stage, scan, key, state, output=output)
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
    files.delete(add(root, "sub/lost.laz").output)
    keys = dict.fromkeys(
        ("sub/same.laz", "same.laz", "edited.laz", "bad.laz", "mended.laz", "sub/lost.laz", "new.laz"), "1"
    )
    keys |= {"edited.laz": "2", "mended.laz": "2"}
    found = plan(keys, read_all(root, "preprocess"))
    assert found == Plan(
        new=("new.laz",), changed=("edited.laz", "mended.laz"), lost=("sub/lost.laz",), quarantined=("bad.laz",),
        unchanged=("same.laz", "sub/same.laz"), gone=("gone.laz",),
    )  # fmt: skip
    assert found.todo == ("bad.laz", "edited.laz", "mended.laz", "new.laz", "sub/lost.laz")
    assert plan(keys, read_all(root, "preprocess"), retry_quarantined=False).todo == (
        "edited.laz", "mended.laz", "new.laz", "sub/lost.laz",
    )  # fmt: skip


def test_a_plan_is_read_at_a_glance() -> None:
    found = Plan(new=tuple(f"{n:02}|x.laz" for n in range(25)), unchanged=("a.laz",))
    assert str(found) == "25 scans to do (25 new, 1 unchanged)"
    assert str(Plan()) == "0 scans to do (no scans)"
    table = found.to_markdown()
    assert "| 25 | new | read | `00\\|x.laz`, " in table
    assert "`19\\|x.laz` and 5 more |" in table
    assert "20|" not in table
