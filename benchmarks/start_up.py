"""From the start of the command to the first point labelled: `python -m benchmarks.start_up --rounds 3`.

Runs `python -m flows segment` on one small simulated scan, each time into an empty folder, and prints one JSON line:
the seconds from the start of the command to each milestone in the round whose points were labelled first, and the
processor seconds of all its processes together, which other work on the machine lengthens little. Where
PREFECT_API_URL and RAY_ADDRESS are set, the command uses those services, whose processor seconds are not counted.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig
from pointcloud.storage import ledger

_PROJECT = Path(__file__).resolve().parent.parent
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_SIZE = SurveyConfig(tiles=(1, 1), tile_size_m=20.0, points_per_m2=4.0)
_LINES = {
    "flow begins": "Beginning flow run",
    "plan": "points in 1 scan to label",
    "labelled, says the log": "points/s",
    "report": "report: ",
}
"""Milestone -> words of the line that tells of it."""


def measure(folder: Path, checkpoint: str) -> dict[str, float]:
    """Label the scan of a folder; milestone -> seconds since the command was started."""
    out = folder / "labelled"
    command = (
        sys.executable,
        "-m",
        "flows",
        "segment",
        "--scans",
        str(folder / "scans"),
        "--checkpoint",
        checkpoint,
        "--out",
        str(out),
    )
    environment = os.environ | {"PYTHONPATH": str(_PROJECT), "PYTHONUNBUFFERED": "1"}
    found, told, used = dict[str, float](), "", _cpu_s()
    began = time.time()
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told += line
            found.setdefault("first line", time.time() - began)
            for name, words in _LINES.items():
                if words in line:
                    found.setdefault(name, time.time() - began)
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{told[-3000:]}")
    found["end"] = time.time() - began
    (record,) = ledger.read_all(str(out), "segment").values()
    stages = record.details["stages"]
    found["actor begins"] = record.details["begun"] - began
    found["first point labelled"] = (
        found["actor begins"] + stages["decode"] + stages["cut and merge"] + stages["network"]
    )
    _await_orphans()
    found["processor seconds"] = _cpu_s() - used
    return {name: round(seconds, 2) for name, seconds in sorted(found.items(), key=lambda each: each[1])}


def _adopt_orphans() -> None:
    """Become the parent of processes whose own has ended, so that their processor time is counted here."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _await_orphans() -> None:
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _cpu_s() -> float:
    """Processor time of all processes below this one that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checkpoint", default=str(_PROJECT / "pretrained" / "airborne"))
    options = parser.parse_args()
    _adopt_orphans()
    rounds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="pointloom-start-up-") as name:
            write_survey(_SIZE, Path(name, "scans"))
            rounds.append(measure(Path(name), options.checkpoint))
            print(rounds[-1], file=sys.stderr, flush=True)
    print(json.dumps(min(rounds, key=lambda each: each["first point labelled"])))


if __name__ == "__main__":
    main()
