"""The generated parts of the pages are what the code says now."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from docs import generate
from flows.__main__ import COMMANDS
from pointcloud.dataset.store import BLOCK_SCHEMA


def test_generated_parts_are_up_to_date() -> None:
    stale = [str(path) for path, text in generate.pages().items() if path.read_text() != text]
    assert not stale, "run `python -m docs.generate` and commit what it writes"


def test_every_command_has_a_page_of_its_options() -> None:
    folder = generate.DOCS / "reference" / "command-line"
    for name in COMMANDS:
        assert f"<!-- generated: command {name} -->" in (folder / f"{name}.md").read_text()


def test_an_option_is_shown_with_its_bounds_default_and_choices() -> None:
    lines = {
        line.split("|")[1].strip(): line
        for line in generate.command("segment").splitlines()
        if "| `--" in line
    }
    assert "**required**" in lines["`--checkpoint`"]
    assert "≥ 0 ≤ 1" in lines["`--min-confidence`"]
    assert "`laz`" in lines["`--format`"]
    assert "`same`" in lines["`--format`"]
    assert "| on |" in lines["`--retry-quarantined`, `--no-retry-quarantined`"]


def test_every_column_of_a_block_is_explained() -> None:
    lines = generate.blocks("").splitlines()
    for name in BLOCK_SCHEMA.names:
        (line,) = [line for line in lines if line.startswith(f"| `{name}` |")]
        assert len(line.split("|")[3].strip()) > 3


def test_attributes_are_read_from_google_docstrings() -> None:
    @dataclasses.dataclass
    class Sample:
        """One sample.

        Attributes:
            first, second: both are
                meant.
            third: this one: with a colon.

        Raises:
            ValueError: never.
        """

    assert generate.attributes_of(Sample) == {
        "first": "both are meant.", "second": "both are meant.", "third": "this one: with a colon.",
    }  # fmt: skip


def test_an_argument_over_two_lines_is_shown_whole() -> None:
    assert "GLOB=us-ft" in generate.command("inspect")
    text = (
        "Do it.\n\nArgs:\n    one: first line\n        and the second.\n    two: another.\n\n"
        "Raises:\n    E: never.\n"
    )
    assert generate.section_of(text, "Args") == {"one": "first line and the second.", "two": "another."}


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One sentence: all of it.", "One sentence: all of it."),
        ("First one. Second one.", "First one."),
        ("Over two\nlines.\n\nMore.", "Over two lines."),
    ],
)
def test_first_sentence(text: str, first: str) -> None:
    assert generate.first_sentence(text) == first


def test_every_module_of_the_libraries_is_on_an_api_page() -> None:
    pages = "\n".join(path.read_text() for path in generate.API.glob("*.md"))
    for package in generate.API_PACKAGES:
        for path in Path(generate.PROJECT, package).rglob("*.py"):
            if path.stem not in ("__init__", "__main__") and ast.get_docstring(ast.parse(path.read_text())):
                module = ".".join(path.relative_to(generate.PROJECT).with_suffix("").parts)
                assert f"::: {module}\n" in pages
