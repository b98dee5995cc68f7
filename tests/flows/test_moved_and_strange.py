"""Datasets that were copied or moved, and scans with names that are hard to work with, through the flows."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from flows.__main__ import main
from flows.preprocess import preprocess
from pointcloud.dataset import store
from pointcloud.errors import PointloomError
from pointcloud.storage import files, ledger
from tests.flows.test_main_job import preprocessing
from tests.support.clouds import write_las

NOT_UTF8 = b"h\xf6he.las"
ODD = (
    "line\nbreak.las",
    "it's.las",
    'say "a" | b.las',
    "-x.las",
    "A.las",
    "a.las",
    "curly{0}.las",
    "日本.las",
)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_of_a_dataset_is_unchanged_and_never_reaches_into_the_original(
    survey: Path, tmp_path: Path
) -> None:
    scans, one, two = tmp_path / "scans", tmp_path / "one", tmp_path / "sub" / "two"
    shutil.copytree(survey, scans)
    preprocess(preprocessing([scans], one))
    original = contents(one)
    shutil.copytree(one, two)
    assert "0 scans to do (2 unchanged)" in preprocess(preprocessing([scans], two, dry_run=True))
    moved = scans.rename(tmp_path / "moved scans")
    assert "0 scans to do (2 unchanged)" in preprocess(preprocessing([moved], two, dry_run=True))
    first, second = sorted(moved.glob("*.laz"))
    preprocess(preprocessing([first], two))
    assert contents(one) == original
    assert second.name not in str(sorted(contents(two)))
    assert [shard.scan for shard in store.read_manifest(str(two)).shards] == [first.name]


def test_a_ledger_of_an_earlier_version_never_reaches_out_of_its_folder(survey: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    preprocess(preprocessing([survey], one))
    for record in (one / "ledger/preprocess").glob("*.json"):
        fields = files.read_json(str(record))
        path = fields.pop("path")
        fields |= {"output": str(one / path), "details": {**fields["details"], "path": path}}
        files.write_json(str(record), fields)
    original = contents(one)
    shutil.copytree(one, two)
    assert "0 scans to do (2 unchanged)" in preprocess(preprocessing([survey], two, dry_run=True))
    preprocess(preprocessing([sorted(survey.glob("*.laz"))[0]], two))
    assert contents(one) == original
    assert len(list((two / "shards").iterdir())) == 1


@pytest.mark.slow
def test_a_dataset_goes_to_a_bucket(survey: Path, bucket: str, tmp_path: Path) -> None:
    preprocess(preprocessing([survey], tmp_path / "one"))
    for name, content in contents(tmp_path / "one").items():
        files.write_bytes(files.join(bucket, "two", *name.split("/")), content)
    parameters = preprocessing([survey], tmp_path, dry_run=True).model_copy(update={"out": f"{bucket}/two"})
    assert "0 scans to do (2 unchanged)" in preprocess(parameters)


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """Scans with odd names, one whose name is not UTF-8, and one whose name is too long to name outputs after."""
    folder = tmp_path / "strange"
    folder.mkdir()
    good = write_las(tmp_path / "good.las", 300)
    for name in (*map(str.encode, ODD), NOT_UTF8, b"n" * 251 + b".las"):
        shutil.copy(good, os.path.join(os.fsencode(folder), name))
    return folder


def test_scans_with_strange_names_are_set_aside_one_by_one(strange: Path, tmp_path: Path) -> None:
    out = tmp_path / "blocks"
    with pytest.raises(PointloomError, match="2 of 10 scans quarantined, 0 allowed"):
        preprocess(preprocessing([strange], out, across_scans=False))
    manifest = store.read_manifest(str(out))
    assert {shard.scan for shard in manifest.shards} == set(ODD)
    not_utf8, too_long = sorted(manifest.quarantined.values())
    assert "h\\xf6he.las' is not UTF-8" in not_utf8
    assert "255 bytes" in too_long
    assert "2 quarantined, 8 unchanged" in preprocess(
        preprocessing([strange], out, across_scans=False, dry_run=True)
    )
    assert len(ledger.read_all(str(out), "preprocess")) == len(ODD) + 2


def test_inspect_shows_the_others(strange: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(strange)]) == 1
    said = capsys.readouterr()
    assert said.out.count("would use") == len(ODD)
    assert "h\\xf6he.las' is not UTF-8" in said.err
    assert "255 bytes" in said.err
    assert "2 of 10 scans cannot be used" in said.err
