"""Whether two revisions of the code compute the same, byte for byte: `python -m benchmarks.same_results --against REV`.

A refactoring must not change a result. The script runs the pipeline of both revisions on the same simulated survey:
it preprocesses the scans, trains two epochs and labels the scans with that network. It then compares every shard, the
weights and every labelled cloud. Only the command line is used, so a revision may have any layout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_LIMIT_S = 1200
_SURVEY = ["--tiles", "2", "1", "--tile-size-m", "48", "--points-per-m2", "6", "--seed", "7"]
_PREPROCESS = ["--label-scheme", "asprs-basic", "--voxel-size-m", "0.5", "--tile-size-m", "16"]
_TRAIN = ["--epochs", "2", "--channels", "8", "--num-layers", "3", "--fusion-channels", "32"]
# Only what a step computes. Ledgers, manifests and reports hold times and paths.
_RESULTS = ("blocks/shards/*", "checkpoint/weights-*", "labelled/*.laz")


def run(code: Path, work: Path) -> dict[str, str]:
    """Run the pipeline of the checkout `code` in the empty folder `work`.

    Returns:
        The SHA-256 of each result, by its path below `work`.

    Raises:
        RuntimeError: a step failed, or left no result.
    """
    _step(code, work, "pointcloud.simulate", "survey", "--out", "scans", *_SURVEY)
    _step(code, work, "flows", "preprocess", "--scans", "scans", "--out", "blocks", *_PREPROCESS)
    one_thread = ["--cpus-per-worker", "1"]
    _step(code, work, "flows", "train", "--dataset", "blocks", "--out", "checkpoint", *_TRAIN, *one_thread)
    _step(
        code, work, "flows", "segment", "--scans", "scans", "--checkpoint", "checkpoint", "--out", "labelled"
    )
    digests = {}
    for pattern in _RESULTS:
        paths = sorted(work.glob(pattern))
        if not paths:
            raise RuntimeError(f"{code} left no {pattern}.")
        for path in paths:
            digests[path.relative_to(work).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def _step(code: Path, work: Path, module: str, *arguments: str) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(code),
        "PREFECT_HOME": str(work / "prefect"),
        "RAY_AUTH_MODE": "disabled",
        "OMP_NUM_THREADS": "1",  # sums of floats depend on how many threads share them
    }
    for name in ("RAY_ADDRESS", "PREFECT_API_URL"):
        environment.pop(name, None)
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} in {code} ended with {done.returncode}:\n{done.stderr[-3000:]}"
        )


def main() -> int:
    """Print a line for each result; the exit status is 0 where all are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", required=True, metavar="REV", help="the revision to compare with")
    revision = parser.parse_args().against
    here = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory(prefix="same-results-") as folder:
        before = Path(folder, "before")
        subprocess.run(["git", "-C", here, "worktree", "add", "--detach", before, revision], check=True)
        try:
            digests = []
            for name, code in (("then", before), ("now", here)):
                Path(folder, name).mkdir()
                digests.append(run(code, Path(folder, name)))
        finally:
            subprocess.run(["git", "-C", here, "worktree", "remove", "--force", before], check=True)
    then, now = digests
    for path in sorted(then.keys() | now.keys()):
        verdict = "equal" if then.get(path) == now.get(path) else "DIFFERS"
        print(f"{verdict:8} {now.get(path, 'absent')[:16]:16} {path}")
    print(json.dumps({"results": len(now), "equal": then == now}))
    return 0 if then == now else 1


if __name__ == "__main__":
    sys.exit(main())
