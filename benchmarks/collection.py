"""What a scan costs in small and in large collections: `python -m benchmarks.collection --scans 500 2000 10000`.

Makes collections of so many tiny scans, side by side on the ground, and runs the commands on them, each in a process
of its own with an embedded Prefect server: preprocess, preprocess again with nothing to do, segment with a small
network, segment again. The seconds of a scan are those of the command less those of the same command on one scan,
divided by the number of scans. Growth is the seconds of a scan in the largest collection as a multiple of those in the
smallest. Prints a table and ends with one JSON line; `rerun_seconds`, `driver_mb` and `database_mb` are the largest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import laspy
import numpy as np
import psutil
import torch

from benchmarks.segmenting import FEATURES, SCHEME
from models.network.configurations import DeepGCNConfig
from models.network.deepgcn import DeepGCN
from models.weights.checkpoint import Checkpoint, save_checkpoint
from pointcloud.blocks.features import FeatureStatistics, num_channels
from pointcloud.grid.block_config import BlockConfig
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig

_SCAN_SIZE_M, _POINTS_PER_M2 = 20.0, 1.0
_BLOCKS = BlockConfig(tile_size_m=_SCAN_SIZE_M, halo_m=2.0, voxel_size_m=0.5)
_LIMIT_S = 24 * 3600
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What one command took.

    Attributes:
        seconds: wall time.
        driver_cpu_s: processor time of the command's own process, which others on this machine do not lengthen.
        driver_mb: largest resident memory of that process.
    """

    seconds: float
    driver_cpu_s: float
    driver_mb: float


def write_scans(folder: Path, num_scans: int) -> Path:
    """Copies of one tiny simulated scan, side by side in a square; the folder."""
    size = SurveyConfig(tiles=(1, 1), tile_size_m=_SCAN_SIZE_M, points_per_m2=_POINTS_PER_M2)
    (first,) = write_survey(size, folder / "first")
    las, side = laspy.read(first), int(np.ceil(np.sqrt(num_scans)))
    points, scans = np.array(las.xyz), folder / "scans"
    scans.mkdir(parents=True)
    for number in range(num_scans):
        row, column = divmod(number, side)
        las.xyz = points + np.array([column, row, 0]) * _SCAN_SIZE_M
        las.write(scans / f"scan_{row:03}_{column:03}.las")
    return scans


def write_checkpoint(folder: Path) -> None:
    """A small network as drawn: what it labels is of no interest."""
    network = DeepGCNConfig(
        in_channels=num_channels(FEATURES), num_classes=len(SCHEME), num_layers=3, channels=8, k=4, fusion_channels=16,
        prediction_channels=(16, 8),
    )  # fmt: skip
    names = ("height", "intensity", "return_number", "number_of_returns")
    statistics = FeatureStatistics(dict.fromkeys(names, 1.0), dict.fromkeys(names, 1.0))
    torch.manual_seed(0)
    save_checkpoint(
        str(folder),
        Checkpoint(
            network=network, state=DeepGCN(network).state_dict(), block_config=_BLOCKS, label_scheme=SCHEME,
            features=FEATURES, statistics=statistics,
        ),
    )  # fmt: skip


def measure(folder: Path, checkpoint: Path, processes: int) -> dict[str, Measured]:
    """The commands on the scans of a folder, in their order."""
    cut = (
        "preprocess", "--scans", "scans", "--out", "blocks", "--processes", str(processes), "--tile-size-m",
        str(_BLOCKS.tile_size_m), "--halo-m", str(_BLOCKS.halo_m), "--voxel-size-m", str(_BLOCKS.voxel_size_m),
    )  # fmt: skip
    label = (
        "segment", "--scans", "scans", "--checkpoint", str(checkpoint), "--out", "labelled", "--num-actors",
        str(processes), "--cpus-per-actor", "1",
    )  # fmt: skip
    commands = {"preprocess": cut, "preprocess again": cut, "segment": label, "segment again": label}
    return {name: _run(folder, *command) for name, command in commands.items()}


def _run(folder: Path, *arguments: str) -> Measured:
    """Run a command of the product in a folder. Raises RuntimeError where it fails."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "PREFECT_HOME": str(folder / "prefect"),
        "RAY_AUTH_MODE": "disabled",
    }
    for name in ("RAY_ADDRESS", "PREFECT_API_URL"):
        environment.pop(name, None)
    began, used, most, log = time.monotonic(), 0.0, 0.0, folder / f"{arguments[0]}.log"
    with log.open("ab") as sink:
        command = [sys.executable, "-m", "flows", *arguments]
        with subprocess.Popen(command, cwd=folder, env=environment, stdout=sink, stderr=sink) as process:
            while process.poll() is None and time.monotonic() - began < _LIMIT_S:
                used, most = max(used, _cpu_s(process.pid)), max(most, _peak_mb(process.pid))
                time.sleep(_LOOK_SECONDS)
            process.terminate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    return Measured(seconds=time.monotonic() - began, driver_cpu_s=used, driver_mb=most)


def _cpu_s(pid: int) -> float:
    """Processor time of a process until now; 0 when it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


def _peak_mb(pid: int) -> float:
    """The most memory that a process has had resident; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next(
        (int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0
    )


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, nargs="+", default=[500, 2000, 10000], metavar="N")
    parser.add_argument("--processes", type=int, default=2, help="processes of preprocess, actors of segment")
    parser.add_argument("--keep", type=Path, help="an empty folder for what is made, which stays")
    options = parser.parse_args()
    folder = Path(options.keep or tempfile.mkdtemp(prefix="pointloom-collection-"))
    sizes, rows, database_mb = sorted({1, *options.scans}), dict[int, dict[str, Measured]](), 0.0
    try:
        write_checkpoint(folder / "checkpoint")
        write_scans(folder / "warm-up", 1)
        measure(folder / "warm-up", folder / "checkpoint", options.processes)  # compiles, and fills caches
        for num_scans in sizes:
            home = folder / str(num_scans)
            write_scans(home, num_scans)
            rows[num_scans] = measure(home, folder / "checkpoint", options.processes)
            stored = sum(file.stat().st_size for file in (home / "prefect").glob("prefect.db*"))
            database_mb = max(database_mb, stored / 1e6)
            for name, one in rows[num_scans].items():
                share = max(one.seconds - rows[sizes[0]][name].seconds, 0.0) / max(num_scans - 1, 1)
                print(
                    f"{num_scans:7,} scans  {name:17} {one.seconds:8.1f} s  {share:7.4f} s a scan  driver "
                    f"{one.driver_cpu_s:6.1f} CPU s  {one.driver_mb:6.0f} MB  database {stored / 1e6:6.1f} MB",
                    flush=True,
                )
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)

    def growth(name: str) -> float:
        few, many = (
            (rows[n][name].seconds - rows[1][name].seconds) / n
            for n in (min(options.scans), max(options.scans))
        )
        return round(many / max(few, 1e-9), 3)

    every = [(name, one) for row in rows.values() for name, one in row.items()]
    print(
        json.dumps(
            {
                "preprocess_growth": growth("preprocess"),
                "segment_growth": growth("segment"),
                "rerun_seconds": round(max(one.seconds for name, one in every if name.endswith("again")), 1),
                "driver_mb": round(max(one.driver_mb for _, one in every)),
                "database_mb": round(database_mb, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
