"""Fuzz every reader for a while: `python -m tests.fuzz --cases 10000 --seconds 1800 --seed 0`.

Inputs that show a fault are kept below `--out`, with what was said beside them. The exit status is 1 where there are
any.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import mkdtemp

from tests.fuzz.campaign import run, summary
from tests.fuzz.seeds import SEEDS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", choices=list(SEEDS), default=list(SEEDS))
    parser.add_argument("--out", type=Path, help="an empty folder; a temporary one unless given")
    options = parser.parse_args()
    folder = options.out or Path(mkdtemp(prefix="pointloom-fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for case in run(folder, options.cases, options.seconds, options.seed, options.targets):
        cases.append(case)
        if case.fault:
            print(f"FAULT {case.target}-{case.number}: {case.fault}\n  {case.sentence[:500]}", flush=True)
    print(summary(cases))
    faults = sum(1 for case in cases if case.fault)
    print(
        json.dumps(
            {"cases": len(cases), "faults": faults, "seed": options.seed, "kept": str(folder / "cases")}
        )
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
