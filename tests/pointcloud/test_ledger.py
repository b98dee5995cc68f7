"""A rerun does what changed, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pointcloud import ledger, storage
from pointcloud.ledger import DONE, QUARANTINED, Record, find_done, key_of


@pytest.fixture
def done(tmp_path: Path) -> Record:
    output = tmp_path / "a.parquet"
    output.write_bytes(b"x")
    record = Record(
        "preprocess", "sub/a b.laz", "key", DONE, 10, 5, 0.5, output=str(output), details={"n": [1]}
    )
    ledger.write(str(tmp_path), record)
    return record


def test_finished_work_is_found_whole(tmp_path: Path, done: Record) -> None:
    assert find_done(str(tmp_path), "preprocess", "sub/a b.laz", "key") == done


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
    assert find_done(str(tmp_path), stage, scan, key) is None


def test_a_lost_output_is_not_done(tmp_path: Path, done: Record) -> None:
    storage.delete(done.output)
    assert find_done(str(tmp_path), done.stage, done.scan, done.key) is None


@pytest.mark.parametrize("change", [{"state": QUARANTINED, "error": "bad."}, {"output": ""}])
def test_quarantined_or_without_output_is_not_done(
    tmp_path: Path, done: Record, change: dict[str, str]
) -> None:
    ledger.write(str(tmp_path), replace(done, **change))  # type: ignore[arg-type]
    assert find_done(str(tmp_path), done.stage, done.scan, done.key) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"stage": 1}', b"\xff\xfe", b'{"unknown": 1}'])
def test_a_damaged_record_is_not_done(tmp_path: Path, done: Record, content: bytes) -> None:
    (tmp_path / "ledger" / "preprocess" / "sub" / "a b.laz.json").write_bytes(content)
    assert find_done(str(tmp_path), done.stage, done.scan, done.key) is None


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
