"""Many seeded cases: a sound input is damaged, read in a process of its own under limits, and the outcome judged."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pointcloud.errors import PointloomError
from tasks.runtime.isolation import IsolatedProcesses, isolated
from tests.fuzz.mutations import mutate, name
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import read

MEMORY_MB = 3000  # torch and Prefect are in the process too, for checkpoints and parameters
TIME_LIMIT_S = 20.0
LONGEST_SENTENCE = 1200


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What came of one damaged input.

    Attributes:
        target: kind of input, a key of `SEEDS`.
        number: with the seed of the campaign, all that is needed to make the case again.
        outcome: "read", "named" (one sentence says what is wrong) or "limit" (memory, time, or a decoder that crashed).
        sentence: what was said.
        fault: why the outcome is a defect of Pointloom; empty where it is none.
        seconds: from the call to its outcome.
    """

    target: str
    number: int
    outcome: str
    sentence: str
    fault: str
    seconds: float


def run(
    folder: Path, num_cases: int, seconds: float, seed: int, targets: Sequence[str] = tuple(SEEDS)
) -> Iterator[Case]:
    """Cases of all targets in turn until their number or the time is reached; inputs with a fault stay in `folder`."""
    (folder / "outside.txt").write_text("No reader may open this file.")
    sound = folder / "sound"
    paths = {}
    for target in targets:
        (sound / target).mkdir(parents=True)
        paths[target] = SEEDS[target](sound / target).relative_to(sound / target)
    end = time.monotonic() + seconds
    with isolated(1, MEMORY_MB, TIME_LIMIT_S) as processes:
        for number in range(num_cases):
            if time.monotonic() > end:
                return
            target = targets[number % len(targets)]
            place = folder / "cases" / f"{target}-{number}"
            shutil.copytree(sound / target, place)
            path = _damage(place, place / paths[target], Random(f"{seed} {number}"))
            case = _judge(processes, target, number, path, folder)
            yield case
            if not case.fault:
                shutil.rmtree(place)


def summary(cases: Sequence[Case]) -> str:
    """A Markdown table: cases of each target by outcome, the slowest, and the faults."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    slowest: dict[str, float] = defaultdict(float)
    for case in cases:
        counts[case.target]["fault" if case.fault else case.outcome] += 1
        slowest[case.target] = max(slowest[case.target], case.seconds)
    lines = [
        "| input | cases | read | named | limit | faults | slowest s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for target, count in counts.items():
        cells = [sum(count.values()), count["read"], count["named"], count["limit"], count["fault"]]
        lines.append(f"| {target} | {' | '.join(f'{cell:,}' for cell in cells)} | {slowest[target]:.1f} |")
    return "\n".join(lines)


def _damage(place: Path, given: Path, random: Random) -> Path:
    """Damage one file below a folder; the path that a reader is given after that."""
    paths = sorted(path for path in place.rglob("*") if path.is_file())
    # A dataset or a checkpoint is several files: mostly one of them is damaged, now and then it is lost.
    path = random.choice(paths)
    if len(paths) > 1 and random.random() < 0.05:
        path.unlink()
    elif given.is_file() and random.random() < 0.05:
        return _renamed(given, random)
    else:
        path.write_bytes(mutate(path.name, path.read_bytes(), random))
    return given


def _renamed(path: Path, random: Random) -> Path:
    """A file under a name that is hard to work with; its suffixes stay."""
    suffixes = os.fsencode("".join(path.suffixes))
    while True:
        with suppress(OSError):  # what no file can be called
            return path.rename(os.fsdecode(os.path.join(os.fsencode(path.parent), name(random) + suffixes)))


def _judge(processes: IsolatedProcesses, target: str, number: int, path: Path, folder: Path) -> Case:
    before = _listing(folder)
    began = time.monotonic()
    trespasses: list[str] = []
    try:
        sentence, trespasses = processes.call(read, target, str(path), str(path.parent))
        outcome = "read" if sentence.startswith("read ") else "named"
    except PointloomError as error:
        sentence, outcome = str(error), "limit"
    fault = ""
    if "failed unexpectedly" in sentence:
        fault = "an error that nobody foresaw"
    elif trespasses:
        fault = "; ".join(trespasses)
    elif outcome != "limit" and _listing(folder) != before:
        fault = "files appeared or went"
    elif outcome == "named" and ("\n" in sentence or len(sentence) > LONGEST_SENTENCE):
        fault = "not one sentence"
    return Case(
        target=target,
        number=number,
        outcome=outcome,
        sentence=sentence,
        fault=fault,
        seconds=time.monotonic() - began,
    )


def _listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_size) for path in folder.rglob("*") if path.is_file())
