"""The pages' commands are those of the real command line, and the guides' code runs on a small simulated survey."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.__main__ import COMMANDS, command_line

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
PAGES = sorted(
    [PROJECT / "README.md", PROJECT / "pretrained" / "airborne" / "README.md", *DOCS.rglob("*.md")]
)
FIRST = DOCS / "guides" / "first-survey.md"
# What the code of these pages needs is the scans of the first guide …
READING = [DOCS / "guides/formats.md", DOCS / "developers/add-a-label-scheme.md"]
# … and of these all that it makes.
FOLLOWING = [
    DOCS / page
    for page in (
        "guides/preprocessing.md", "guides/own-labels.md", "guides/storage-and-recovery.md", "guides/studies.md",
        "reference/blocks-dataset.md", "reference/checkpoint.md",
    )
]  # fmt: skip
RUN = [FIRST, *READING, *FOLLOWING]
_FENCE = re.compile(r"^((?:<!-- not run: .+? -->\n)?)```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
_PROGRAM = re.compile(r"^\s*(?:\$\(PY\)|python) -m flows |^\s*pointloom ")
_LIMIT_S = 900


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """A block of code of a page: its language, its text, and whether a marker says that it is not run."""

    language: str
    text: str
    is_run: bool


def code_of(page: Path) -> list[Code]:
    """The blocks between fences, in order."""
    found = _FENCE.findall(page.read_text())
    return [Code(language=language, text=text, is_run=not marker) for marker, language, text in found]


def commands_of(page: Path) -> Iterator[list[str]]:
    """The arguments of each line that starts a flow, also in indented blocks, with shell variables filled in."""
    text = page.read_text()
    blocks = [code.text for code in code_of(page) if code.language in ("sh", "bash", "")]
    blocks += [found for found in _INDENTED.findall(_FENCE.sub("", text)) if _PROGRAM.search(found)]
    for block in blocks:
        values: dict[str, str] = {}
        for line in block.replace("\\\n", " ").splitlines():
            if assigned := re.match(r'\s*(?:export )?(\w+)=(?:"(.*)"|(\S+))\s*$', line):
                values[assigned[1]] = assigned[2] or assigned[3]
            elif _PROGRAM.search(line):
                for name, value in values.items():
                    line = re.sub(rf"\${name}\b", value, line)
                yield shlex.split(_PROGRAM.sub("", line), comments=True)


COMMAND_LINES = [(page, arguments) for page in PAGES for arguments in commands_of(page)]


def test_commands_are_found() -> None:
    """In the README, between fences and indented, continued on the next line, with variables."""
    found = {page.relative_to(PROJECT).as_posix() for page, _ in COMMAND_LINES}
    assert {"README.md", "docs/guides/first-survey.md", "docs/benchmarks/studies.md"} <= found
    assert {arguments[0] for _, arguments in COMMAND_LINES} == set(COMMANDS) - {"demo"}


@pytest.mark.parametrize(
    ("page", "arguments"), COMMAND_LINES, ids=[f"{page.stem}-{' '.join(a)[:60]}" for page, a in COMMAND_LINES]
)
def test_command_is_one_of_the_command_line(page: Path, arguments: list[str]) -> None:
    arguments = [a for a in arguments if a not in ("…", ">", "scans.json")]
    command_line(arguments).parse_args(arguments, exit_on_error=False, print_error=False)


def test_options_in_prose_exist() -> None:
    """Every `--option` that a page for users names in its text is an option of a flow or of another of our programs."""
    known = {"--help", "--parameters", "--out", "--device", "--check", "--coordinates", "--norm-first"}
    for name in COMMANDS:
        for argument in command_line([name])[name].assemble_argument_collection():
            known.update(argument.names)
    unknown = []
    for page in PAGES:
        if "benchmarks" in page.parts or page.parent.name == "airborne":
            continue
        for found in re.findall(r"`(--[a-z][a-z0-9-]*)[^`]*`", _FENCE.sub("", page.read_text())):
            if found not in known:
                unknown.append(f"{page.relative_to(PROJECT)}: {found}")
    assert not unknown


def test_pages_that_are_run_have_code_to_run() -> None:
    for page in RUN:
        assert [code for code in code_of(page) if code.is_run and code.language in ("sh", "python")], page


def test_code_is_run_or_says_why_not() -> None:
    """Pages whose code no test runs mark every block."""
    pages = [page for page in PAGES if page.is_relative_to(DOCS) and "benchmarks" not in page.parts]
    for page in pages:
        if page not in RUN:
            assert not [
                code for code in code_of(page) if code.is_run and code.language in ("sh", "python")
            ], page


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the first guide before it starts its first flow."""
    folder = tmp_path_factory.mktemp("scans")
    codes = code_of(FIRST)
    start = next(index for index, code in enumerate(codes) if "pointloom preprocess" in code.text)
    run(codes[:start], folder)
    return folder


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the first guide leaves behind."""
    folder = tmp_path_factory.mktemp("survey")
    run(code_of(FIRST), folder)
    return folder


def run(codes: list[Code], folder: Path) -> None:
    """Blocks of code one after the other in a folder; one that fails ends the test with what it said."""
    environment = dict(
        os.environ, PYTHONPATH=str(PROJECT), PREFECT_HOME=str(folder / ".prefect"), OMP_NUM_THREADS="1"
    )
    environment.setdefault("RAY_AUTH_MODE", "disabled")
    for name in ("RAY_ADDRESS", "PREFECT_API_URL"):
        environment.pop(name, None)
    programs = f'python() {{ "{sys.executable}" "$@"; }}\npointloom() {{ python -m flows "$@"; }}\n'
    for code in codes:
        if not code.is_run or code.language not in ("sh", "python"):
            continue
        is_python = code.language == "python"
        command = [sys.executable, "-c", code.text] if is_python else ["bash", "-ec", programs + code.text]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_LIMIT_S
        )
        assert done.returncode == 0, f"{code.text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("page", READING, ids=[page.stem for page in READING])
def test_code_of_the_page_reads_the_scans(page: Path, scans: Path, tmp_path: Path) -> None:
    run(code_of(page), shutil.copytree(scans, tmp_path / "scans"))


@pytest.mark.slow
@pytest.mark.timeout(6 * _LIMIT_S)
def test_first_survey(survey: Path) -> None:
    assert (survey / "labelled" / "simulated_652120_6862000.laz").exists()
    assert (survey / "scores" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.timeout(4 * _LIMIT_S)
@pytest.mark.parametrize("page", FOLLOWING, ids=[page.stem for page in FOLLOWING])
def test_code_of_the_page_runs(page: Path, survey: Path, tmp_path: Path) -> None:
    run(code_of(page), shutil.copytree(survey, tmp_path / "survey"))


def test_paths_of_the_project_in_prose_exist() -> None:
    rooms = "flows|tasks|models|pointcloud|infra|tests|benchmarks|docs|pretrained"
    gone = []
    for page in PAGES:
        for path in re.findall(rf"`((?:{rooms})/[\w./-]+)`", page.read_text()):
            if not (PROJECT / path).exists() and path != "benchmarks/out":
                gone.append(f"{page.relative_to(PROJECT)}: {path}")
        for module in re.findall(
            r"python -m ((?:benchmarks|docs|models|pointcloud|infra)[\w.]*)", page.read_text()
        ):
            place = PROJECT / module.replace(".", "/")
            if not (place.with_suffix(".py").exists() or (place / "__main__.py").exists()):
                gone.append(f"{page.relative_to(PROJECT)}: {module}")
    assert not gone
