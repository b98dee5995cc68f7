"""The preprocess flow as users meet it: plans, reruns, neighbours, bad scans, two runs at once, a killed run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.preprocess import PreprocessParameters, preprocess
from pointcloud.blocks.features import FEATURES
from pointcloud.dataset import store
from pointcloud.dataset.splits import SPLITS
from pointcloud.errors import PointloomError
from pointcloud.formats.reader import read_header
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.rooms import RoomsConfig, write_rooms
from pointcloud.simulate.survey import SurveyConfig
from pointcloud.storage import contents, files, lock
from tasks.prefect_ui.survey_map import COLOURS
from tasks.training.train import check_dataset
from tests.flows.test_main_job import preprocessing
from tests.support import broken_files
from tests.support.clouds import real_files, write_las


def written(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "shards").glob("*")}


def bytes_of(out: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(out)): p.read_bytes() for p in [out / "manifest.json", *(out / "shards").glob("*")]
    }


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(survey: Path, tmp_path: Path) -> None:
    out = tmp_path / "blocks"
    plan = preprocess(preprocessing([survey], out, dry_run=True))
    assert "2 scans to do (2 new)" in plan
    assert not out.exists()
    preprocess(preprocessing([survey], out))
    before = written(out)
    assert "0 scans to do (2 unchanged)" in preprocess(preprocessing([survey], out, dry_run=True))
    assert "2 changed" in preprocess(preprocessing([survey], out, tile_size_m=20.0, dry_run=True))
    assert written(out) == before


def test_a_new_neighbour_cuts_a_scan_again_and_a_distant_one_does_not(survey: Path, tmp_path: Path) -> None:
    first, second = sorted(survey.glob("*.laz"))
    scans, out = tmp_path / "scans", tmp_path / "blocks"
    scans.mkdir()
    shutil.copy(first, scans)
    preprocess(preprocessing([scans], out))
    alone = written(out)
    write_las(scans / "far.las", 200, X=np.arange(200) + 10_000_000)
    preprocess(preprocessing([scans], out))
    assert written(out)[f"{first.name}.parquet"] == alone[f"{first.name}.parquet"]
    shutil.copy(second, scans)
    preprocess(preprocessing([scans], out))
    assert written(out)[f"{first.name}.parquet"] != alone[f"{first.name}.parquet"]
    together = tmp_path / "together"
    preprocess(preprocessing([scans], together))
    assert bytes_of(out) == bytes_of(together)
    manifest = store.read_manifest(str(out))
    mixed = [b for b in store.read_blocks(str(out), manifest, "train") if b.source is not None]
    assert any(len(np.unique(b.source)) > 1 for b in mixed)


@pytest.mark.parametrize("verify", [False, True])
def test_a_scan_that_looks_unchanged_is_not_read_again_unless_asked(
    survey: Path, tmp_path: Path, verify: bool
) -> None:
    """A scan is changed and its note with it, which only reading its bytes can tell."""
    scans, out = tmp_path / "scans", tmp_path / "blocks"
    shutil.copytree(survey, scans)
    preprocess(preprocessing([scans], out))
    note = contents.read_contents(str(out), "preprocess")
    assert len(note) == 2
    scan = sorted(scans.glob("*.laz"))[0]
    scan.write_bytes(scan.read_bytes() + b"more")
    stamp = contents.content_of(str(scan)).stamp
    held = replace(note[scan.name][""], stamp=stamp, read_ns=max(stamp[1:3]) + 10**12)
    contents.write_contents(str(out), "preprocess", note | {scan.name: {"": held}})
    plan = preprocess(preprocessing([scans], out, dry_run=True, verify_content=verify))
    assert ("2 scans to do (2 changed)" if verify else "0 scans to do (2 unchanged)") in plan


def test_a_ledger_without_a_note_of_contents_is_read_once(survey: Path, tmp_path: Path) -> None:
    out = tmp_path / "blocks"
    preprocess(preprocessing([survey], out))
    note, before = out / "ledger" / "preprocess.contents.json", written(out)
    note.unlink()
    assert "0 scans to do (2 unchanged)" in preprocess(preprocessing([survey], out, dry_run=True))
    assert not note.exists(), "a dry run writes nothing"
    preprocess(preprocessing([survey], out))
    assert written(out) == before
    assert contents.read_contents(str(out), "preprocess").keys() == {
        scan.name for scan in survey.glob("*.la[sz]")
    }


def test_a_scan_that_is_gone_leaves_nothing(survey: Path, tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "blocks"
    shutil.copytree(survey, scans)
    preprocess(preprocessing([scans], out))
    gone = sorted(scans.glob("*.laz"))[1]
    gone.unlink()
    preprocess(preprocessing([scans], out))
    assert gone.name not in str(sorted(p.name for p in out.rglob("*")))
    assert len(store.read_manifest(str(out)).shards) == 1


def test_every_broken_file_is_named_and_the_batch_goes_on(survey: Path, tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "blocks"
    shutil.copytree(survey, scans)
    broken = [
        write(scans)
        for write in (
            *broken_files.SUSPECT, *broken_files.UNREADABLE, *broken_files.PANICS, *broken_files.LETHAL,
            broken_files.zero_points,
        )
    ]  # fmt: skip
    preprocess(preprocessing([scans], out, max_quarantined=100, processes=2))
    manifest = store.read_manifest(str(out))
    assert set(manifest.quarantined) == {path.name for path in broken}
    assert [shard.scan for shard in manifest.shards] == sorted(p.name for p in survey.glob("*.laz"))
    for scan, sentence in manifest.quarantined.items():
        assert scan in sentence
        assert sentence.endswith(".")
        assert "unexpectedly" not in sentence
    assert not [p for p in out.rglob("*") if p.suffix == ".part"]


@pytest.mark.parametrize("path", real_files("tricky/*"))
def test_tricky_files_have_one_outcome_each(path: Path, tmp_path: Path) -> None:
    good = {
        "Example_las10_pf1.las", "fullwave_pf10.laz", "las11_pf0_1pt.las", "las12_pf2_1pt.las",
        "malformed_extrabytes.las", "noepsg.laz", "pdrf5-1.3.laz", "single_point_pf8.laz",
    }  # fmt: skip
    if path.name in good:
        preprocess(preprocessing([path], tmp_path, max_points=100_000))
        assert store.read_manifest(str(tmp_path)).quarantined == {}
    else:
        with pytest.raises(PointloomError, match=path.name):
            preprocess(preprocessing([path], tmp_path))


def test_a_required_feature_that_a_scan_lacks(survey: Path, tmp_path: Path) -> None:
    with pytest.raises(PointloomError, match="has no red, green, blue, which the required feature rgb needs"):
        preprocess(preprocessing([survey], tmp_path, features=["xyz", "rgb"]))
    preprocess(preprocessing([survey], tmp_path, features=["xyz", "height", "intensity", "returns"]))
    assert set(FEATURES["returns"][0]) <= set(store.read_manifest(str(tmp_path)).attributes)


def test_an_attribute_that_a_scan_lacks_is_filled_and_named(
    survey: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (first, *_), out = sorted(survey.glob("*.laz")), tmp_path / "blocks"
    np.savez(tmp_path / "bare.npz", xyz=np.random.default_rng(0).random((900, 3)) * (30.0, 30.0, 2.0))
    preprocess(preprocessing([first, tmp_path / "bare.npz"], out, across_scans=False))
    manifest = store.read_manifest(str(out))
    expected = round(manifest.statistics.mean["intensity"])
    assert manifest.filled == {"intensity": expected, "number_of_returns": 1, "return_number": 1}
    assert (
        f"1 of 2 scans have no intensity (bare.npz first): their blocks give {expected} instead"
        in caplog.text
    )
    bare = [b for b in store.read_blocks(str(out), manifest, "train") if b.scan == "bare.npz"]
    assert bare
    assert {int(v) for b in bare for v in b.attributes["intensity"]} == {expected}
    asked = ("xyz", "intensity", "returns")
    assert check_dataset(str(out), asked) == (manifest, asked)
    assert set(check_dataset(str(out), ())[1]) > {"xyz", "returns"}


def test_a_window_is_all_that_is_read(survey: Path, tmp_path: Path) -> None:
    first, _ = sorted(survey.glob("*.laz"))
    x, y = read_header(str(first)).bounds[0, :2].round()
    window = (x + 10, y, x + 20, y + 40)
    preprocess(preprocessing([survey], tmp_path, window=window))
    manifest = store.read_manifest(str(tmp_path))
    assert [shard.scan for shard in manifest.shards] == [first.name]
    for split in ("train", "val"):
        for block in store.read_blocks(str(tmp_path), manifest, split):
            found = block.origin[:2] + block.position[:, :2]
            assert (found >= np.array(window[:2]) - 0.01).all()
            assert (found < np.array(window[2:]) + 0.01).all()
    with pytest.raises(PointloomError, match="no scan has ground in the window"):
        preprocess(preprocessing([survey], tmp_path / "none", window=(0, 0, 1, 1)))
    with pytest.raises(PointloomError, match="is empty"):
        preprocessing([survey], tmp_path, window=(1, 0, 0, 1)).config()


@pytest.mark.slow
def test_all_of_it_in_a_bucket(survey: Path, bucket: str, tmp_path: Path) -> None:
    for scan in survey.glob("*.laz"):
        files.write_bytes(files.join(bucket, "scans", scan.name), scan.read_bytes())
    parameters = preprocessing([], tmp_path).model_copy(
        update={"scans": [f"{bucket}/scans/*.laz"], "out": f"{bucket}/blocks"}
    )
    preprocess(parameters)
    preprocess(preprocessing([survey], tmp_path / "local"))
    manifest, local = store.read_manifest(f"{bucket}/blocks"), store.read_manifest(str(tmp_path / "local"))
    assert manifest.shards == local.shards
    for shard in manifest.shards:
        assert (
            files.read_bytes(f"{bucket}/blocks/{shard.path}")
            == (tmp_path / "local" / shard.path).read_bytes()
        )
    again = parameters.model_copy(update={"dry_run": True})
    assert "2 unchanged" in preprocess(again)


def test_a_second_run_is_refused_while_the_first_writes(survey: Path, tmp_path: Path) -> None:
    out = tmp_path / "blocks"
    with lock.held(str(out)), pytest.raises(PointloomError, match="another run is writing"):
        preprocess(preprocessing([survey], out))
    preprocess(preprocessing([survey], out))


def test_the_papers_blocks_of_rooms(tmp_path: Path) -> None:
    write_rooms(RoomsConfig(seed=0), tmp_path / "s3dis")
    out = tmp_path / "blocks"
    preprocess(
        preprocessing(
            [tmp_path / "s3dis"], out, label_scheme="s3dis", tile_size_m=1.0, voxel_size_m=0.1, halo_m=0.0,
            thin=False, overlap=2, max_points=1_000_000, sample_points=4096, min_points=100, val_fraction=0.0,
            test_scans=["Area_1/*"], features=["xyz", "rgb", "room_xyz"],
        )
    )  # fmt: skip
    manifest = store.read_manifest(str(out))
    assert all(shard.scan.startswith("Area_") for shard in manifest.shards)
    blocks = list(store.read_blocks(str(out), manifest, "test"))
    assert {b.scan.split("/")[0] for b in blocks} == {"Area_1"}
    for block in blocks[:20]:
        assert len(block) == 4096
        assert block.is_core.all()
        assert np.abs(block.position[:, :2]).max() <= 0.5 + 1e-6
    assert any(len(np.unique(b.point_index)) < 4096 for b in blocks)


def test_scans_by_state_and_their_map_are_in_the_ui(survey: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    shutil.copytree(survey, scans)
    broken_files.not_a_las(scans)
    preprocess(preprocessing([scans], tmp_path / "seen", max_quarantined=1))
    with get_client(sync_client=True) as client:
        found = {
            artifact.type: artifact.data
            for artifact in client.read_artifacts(
                artifact_filter=ArtifactFilter(key=ArtifactFilterKey(like_="%seen%"))
            )
        }
    states = {row["scan"]: row["state"] for row in json.loads(found["table"])}
    assert states == {p.name: "done" for p in survey.glob("*.laz")} | {"not_a_las.las": "quarantined"}
    picture = b64decode(found["image"].removeprefix("data:image/svg+xml;base64,")).decode()
    seen = str(tmp_path / "seen")
    manifest = store.read_manifest(seen)
    tiles = {(b.scan, *b.tile) for split in SPLITS for b in store.read_blocks(seen, manifest, split)}
    assert picture.count(f'fill="{COLOURS["done"]}"') - 1 >= len(tiles) > 2  # one is the legend's
    assert float(found["progress"]) == 100.0


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    plan = SurveyConfig(seed=1, tile_size_m=60.0, tiles=(4, 2), points_per_m2=8.0)
    write_survey(plan, tmp_path / "scans")
    out = tmp_path / "blocks"
    command = [
        sys.executable, "-m", "flows", "preprocess", "--scans", str(tmp_path / "scans"), "--out", str(out),
        "--processes", "1",
    ]  # fmt: skip
    run = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        limit = time.monotonic() + 120
        while len(list((out / "ledger" / "preprocess").glob("*.json"))) < 2 and time.monotonic() < limit:
            time.sleep(0.05)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait(30)
    done = written(out)
    assert 2 <= len(done) < 8
    assert not (out / "manifest.json").exists()
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    kept = [name for name, time_ns in written(out).items() if done.get(name) == time_ns]
    assert len(kept) >= 2
    preprocess(preprocessing([tmp_path / "scans"], tmp_path / "whole", **_settings()))
    # What the kill left half-written is removed by a later run, when it is old enough to be nobody's.
    files = {name: content for name, content in bytes_of(out).items() if not name.endswith(".part")}
    assert files == bytes_of(tmp_path / "whole")


def _settings() -> dict[str, object]:
    """Those of the command line."""
    fields = PreprocessParameters.model_fields
    return {name: fields[name].default for name in ("tile_size_m", "halo_m", "voxel_size_m", "overlap")}
