"""What becomes of a collection when things are killed while it is segmented, and a timeline of it (`-s` shows it)."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.segment import SegmentParameters
from models.weights.checkpoint import save_checkpoint
from pointcloud.delivery.proof import find_difference
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig
from pointcloud.storage import files, ledger
from tests.models.test_predictor import make_predictor
from tests.support.flow_runs import LIMIT_S, FlowRun
from tests.support.s3 import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six adjacent tiles, each some seconds of work for the network below."""
    folder = tmp_path_factory.mktemp("scans")
    return write_survey(SurveyConfig(seed=5, tile_size_m=40.0, tiles=(6, 1), points_per_m2=8.0), folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(str(folder), make_predictor(voxel_size_m=0.25).checkpoint)
    return folder


class Run(FlowRun):
    """A `segment` flow."""

    def __init__(self, parameters: SegmentParameters, folder: Path) -> None:
        self.out = parameters.out
        super().__init__("segment", parameters, folder)

    def done(self) -> dict[str, ledger.Record]:
        return {name: r for name, r in ledger.read_all(self.out, "segment").items() if r.state == ledger.DONE}

    def wait_for(self, number: int) -> None:
        """Until so many scans are labelled, and not all are."""
        self.until(lambda: len(self.done()) >= number)
        self.say(f"{len(self.done())} scans are labelled")

    def ends(self) -> int:
        code = super().ends()
        self.say(f"{len(self.done())} scans are labelled")
        return code


@pytest.fixture
def start(scans: list[Path], checkpoint: Path, tmp_path: Path) -> Iterator[Callable[[str], Run]]:
    runs: list[Run] = []

    def start(out: str) -> Run:
        parameters = SegmentParameters(
            scans=[str(scan) for scan in scans],
            checkpoint=str(checkpoint),
            out=out,
            cpus_per_actor=1,
            rotations=6,
        )
        runs.append(Run(parameters, tmp_path))
        return runs[-1]

    print()
    yield start
    for run in runs:
        run.close()
    said = (tmp_path / "log").read_text()
    print(said[-3000:] if "Traceback" in said else "")


def assert_whole(run: Run, scans: list[Path]) -> None:
    """Every scan is labelled once, and proven; nothing half-written is left."""
    names = {scan.name for scan in scans}
    assert run.done().keys() == names
    found = [file.name for file in files.list_files(run.out, recursive=False)]
    assert sorted(name for name in found if name != "report.html") == sorted(names)
    for scan in scans:
        assert find_difference(str(scan), files.join(run.out, scan.name)) is None
    run.say(f"all {len(scans)} scans are labelled, compared with their scans again: equal")


def test_an_actor_is_killed(start: Callable[[str], Run], scans: list[Path], tmp_path: Path) -> None:
    run = start(str(tmp_path / "out"))
    run.wait_for(1)
    run.find("ScanSegmenter").kill()
    run.say("an actor is killed in the middle of a scan")
    run.wait_for(2)
    assert run.ends() == 0, "Ray gives the scan to a new actor"
    assert_whole(run, scans)


def test_a_scan_that_kills_every_actor_is_quarantined_and_the_others_are_labelled(
    start: Callable[[str], Run], scans: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    run = start(str(tmp_path / "out"))
    for number in (1, 2, 3):
        # The decoded scan of an actor that is killed stays behind.
        run.until(lambda number=number: len([*scratch.glob("pointloom-decoded-*")]) == number)
        run.find("ScanSegmenter").kill()
        run.say(f"the actor is killed over its scan, time {number}")
    assert run.ends() == 1
    (victim,) = {scan.name for scan in scans} - run.done().keys()
    record = ledger.read_all(run.out, "segment")[victim]
    assert record.state == ledger.QUARANTINED
    assert "3 processes ended without an error message" in record.error
    assert (tmp_path / "out" / "report.html").exists()


def test_the_flow_is_killed_and_run_again(
    start: Callable[[str], Run], scans: list[Path], tmp_path: Path
) -> None:
    run = start(str(tmp_path / "out"))
    run.wait_for(2)
    run.kill()
    run.say("the driver, Ray and the actors are killed")
    before = {name: record.details["begun"] for name, record in run.done().items()}
    assert 2 <= len(before) < len(scans)
    for file in files.list_files(run.out, recursive=False):
        if file.name.endswith(".laz"):
            assert find_difference(str(next(s for s in scans if s.name == file.name)), file.uri) is None
    again = start(run.out)
    assert again.ends() == 0
    assert_whole(again, scans)
    after = {name: record.details["begun"] for name, record in again.done().items()}
    assert {name: after[name] for name in before} == before, "what was done is not done again"


def test_the_disk_is_full_for_a_while(start: Callable[[str], Run], scans: list[Path], tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    size = sum(scan.stat().st_size for scan in scans) // 2
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk needs a machine where tests may mount one")
    try:
        run = start(str(small / "out"))
        assert run.ends() == 1
        assert 0 < len(run.done()) < len(scans)
        assert "No space left on device" in (tmp_path / "log").read_text()
        subprocess.run(["mount", "-o", f"remount,size={8 * size}", str(small)], check=True)
        run.say("the disk is made larger")
        again = start(run.out)
        assert again.ends() == 0
        assert_whole(again, scans)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_the_bucket_of_the_labelled_clouds_is_gone_for_a_minute(
    start: Callable[[str], Run], scans: list[Path], bucket: str, s3_server: S3Server
) -> None:
    run = start(files.join(bucket, "out"))
    run.wait_for(1)
    s3_server.kill()
    run.say("the bucket's server is killed")
    back = threading.Timer(45, s3_server.start)
    back.start()
    try:
        code = run.process.wait(LIMIT_S)
    finally:
        back.join()
    run.say(f"the server was back after 45 s; the flow ended with exit status {code}")
    if code:  # scans whose time ran out are for the next run
        run = start(run.out)
        assert run.ends() == 0
    assert_whole(run, scans)
