"""Training and segmenting on two raylets that share nothing but a bucket, from the installed wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.weights.checkpoint import RECORD, read_checkpoint
from pointcloud.delivery.proof import find_difference
from pointcloud.storage import files as storage
from pointcloud.storage import ledger
from tests.support.s3 import bucket, s3_server

__all__ = ["bucket", "s3_server"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
EPOCHS = 30
SMALL = [
    "--num-layers", "3", "--channels", "8", "--k", "4", "--fusion-channels", "16", "--cpus-per-worker", "1",
    "--epochs", str(EPOCHS),
]  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project as its wheel installs it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    subprocess.run([*pip, *build], check=True, timeout=300)
    (built,) = folder.glob("*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "-t", str(folder / "site"), str(built)], check=True, timeout=300
    )
    return folder / "site"


@pytest.fixture
def environment(wheel: Path, bucket: str, tmp_path: Path) -> dict[str, str]:
    """Of every process of the cluster: the project only as installed, from a folder that is not its own."""
    return {
        **os.environ,
        "PYTHONPATH": str(wheel), "PYTHONSAFEPATH": "1", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15",
        "PREFECT_HOME": str(tmp_path / "prefect"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip


@pytest.fixture
def raylets(environment: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The cluster's script; `environment` names its address from here on."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "support" / "raylets.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        environment["RAY_ADDRESS"] = process.stdout.readline().strip()
        assert environment["RAY_ADDRESS"], "the cluster did not start"
        yield process
    finally:
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def flows(*arguments: str, environment: dict[str, str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows", *arguments], env=environment, cwd=cwd, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def ends_well(process: subprocess.Popen[str], limit_s: float = 400) -> str:
    try:
        said = process.communicate(timeout=limit_s)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(process.communicate()[0][-3000:]) from None
    assert process.returncode == 0, said[-3000:]
    return said


def put(files: list[Path], folder: str) -> None:
    for file in files:
        with storage.staged(storage.join(folder, file.name)) as part:
            shutil.copy(file, part)


def test_a_training_outlives_a_node_and_its_checkpoint_labels_in_the_bucket(
    survey: Path,
    bucket: str,
    environment: dict[str, str],
    raylets: subprocess.Popen[str],
    wheel: Path,
    tmp_path: Path,
) -> None:
    where = subprocess.run(
        [sys.executable, "-c", "import flows, pointcloud; print(flows.__file__, pointcloud.__file__)"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert all(path.startswith(str(wheel)) for path in where.split())
    put(sorted(survey.glob("*.laz")), storage.join(bucket, "scans"))
    place = {"environment": environment, "cwd": tmp_path}
    scans, blocks, checkpoint, labelled = (
        storage.join(bucket, name) for name in ("scans", "blocks", "checkpoint", "labelled")
    )
    sizes = ["--tile-size-m", "10", "--halo-m", "1", "--voxel-size-m", "1"]
    ends_well(flows("preprocess", "--scans", scans, "--out", blocks, *sizes, **place))
    elastic = ["--num-workers", "2", "--min-workers", "1"]
    training = flows("train", "--dataset", blocks, "--out", checkpoint, *SMALL, *elastic, **place)
    deadline = time.monotonic() + 200
    while not any(
        file.uri.endswith("state.json") for file in storage.list_files(storage.join(checkpoint, "runs"))
    ):
        assert training.poll() is None, training.communicate()[0][-3000:]
        assert time.monotonic() < deadline, "no epoch was kept"
        time.sleep(0.5)
    assert raylets.stdin is not None
    raylets.stdin.write("lose\n")
    raylets.stdin.flush()
    time.sleep(1)
    assert training.poll() is None, "it was over before the node was lost"
    ends_well(training)
    history = read_checkpoint(checkpoint).history
    assert [epoch["epoch"] for epoch in history] == list(range(1, EPOCHS + 1))
    assert storage.exists(storage.join(checkpoint, RECORD))
    names = ["--scans", scans, "--checkpoint", checkpoint, "--out", labelled, "--cpus-per-actor", "1"]
    ends_well(flows("segment", *names, **place))
    records = ledger.read_all(labelled, "segment")
    assert {record.state for record in records.values()} == {ledger.DONE}
    for scan in sorted(survey.glob("*.laz")):
        assert find_difference(str(scan), storage.join(labelled, scan.name)) is None


def test_two_actors_on_two_nodes_label_one_collection_in_the_bucket(
    survey: Path, bucket: str, environment: dict[str, str], raylets: subprocess.Popen[str], tmp_path: Path
) -> None:
    scans, checkpoint, labelled = (storage.join(bucket, name) for name in ("scans", "ready-made", "labelled"))
    put(sorted(survey.glob("*.laz")), scans)
    put(sorted((ROOT / "pretrained" / "airborne").iterdir()), checkpoint)
    actors = ["--num-actors", "2", "--cpus-per-actor", "1"]
    names = ["--scans", scans, "--checkpoint", checkpoint, "--out", labelled]
    ends_well(flows("segment", *names, *actors, environment=environment, cwd=tmp_path))
    records = ledger.read_all(labelled, "segment").values()
    assert {record.state for record in records} == {ledger.DONE}
    assert len({record.details["node"] for record in records}) == 2, "each node labelled some of the scans"
    for scan in sorted(survey.glob("*.laz")):
        assert find_difference(str(scan), storage.join(labelled, scan.name)) is None
