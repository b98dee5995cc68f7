"""Preprocessing while storage is away: scans are left to the next run, and what is done is kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from flows import preprocess as flow
from flows.preprocess import preprocess
from pointcloud.dataset import store
from pointcloud.errors import StorageError
from tasks.collection import outage
from tests.flows.test_main_job import preprocessing
from tests.support.clouds import write_las


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Eight scans far from each other."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(8):
        write_las(folder / f"{number}.las", 200, seed=number)
    return folder


def run(scans: Path, out: Path, **settings: Any) -> None:
    preprocess(preprocessing([scans], out, across_scans=False, val_fraction=0.0, processes=1, **settings))


def test_scans_that_storage_does_not_take_are_left_and_the_rest_goes_on(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "PAUSE_SECONDS", 0.0)
    out = tmp_path / "blocks"
    for name in ("3.las", "5.las"):
        (out / "ledger" / "preprocess" / f"{name}.json").mkdir(parents=True)  # no file can take its place
    with pytest.raises(
        StorageError, match="2 of 8 scans could not be reached or written; start again"
    ) as error:
        run(scans, out)
    assert ".las.json" in str(error.value)
    manifest = store.read_manifest(str(out))
    assert {shard.scan for shard in manifest.shards} == {f"{n}.las" for n in (0, 1, 2, 4, 6, 7)}
    assert set(manifest.quarantined) == {"3.las", "5.las"}
    for name in ("3.las", "5.las"):
        (out / "ledger" / "preprocess" / f"{name}.json").rmdir()
    run(scans, out)
    assert len(store.read_manifest(str(out)).shards) == 8


def test_five_in_a_row_end_the_run_and_what_is_done_is_kept(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "PAUSE_SECONDS", 0.0)
    out, some = tmp_path / "blocks", tmp_path / "some"
    some.mkdir()
    for name in ("0.las", "1.las"):
        shutil.copy(scans / name, some)
    run(some, out)
    for number in range(2, 8):
        (out / "ledger" / "preprocess" / f"{number}.las.json").mkdir()
    with pytest.raises(StorageError, match="6 of 8 scans could not be reached or written"):
        run(scans, out)
    manifest = store.read_manifest(str(out))
    assert {shard.scan for shard in manifest.shards} == {"0.las", "1.las"}
    assert sum("was left, because 5 scans in a row" in why for why in manifest.quarantined.values()) == 1


def test_a_scan_that_is_not_reached_keeps_what_there_is_of_it(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "PAUSE_SECONDS", 0.0)
    out = tmp_path / "blocks"
    run(scans, out)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(scans / "0.las", elsewhere)
    (scans / "0.las").symlink_to(elsewhere)
    listed = flow.find_scans

    def find_and_lose(patterns: list[str]) -> Any:
        sources = listed(patterns)
        elsewhere.unlink(missing_ok=True)
        return sources

    monkeypatch.setattr(flow, "find_scans", find_and_lose)
    with pytest.raises(StorageError, match="1 of 8 scans could not be reached"):
        run(scans, out)
    assert (out / "shards" / "0.las.parquet").exists()
    assert len(store.read_manifest(str(out)).shards) == 7
