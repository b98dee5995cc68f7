"""Tables in Markdown (GitHub Flavored Markdown, section 4.10), as plans, scores and reports show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_RULES = {"l": "---", "r": "---:"}


def cell(text: str) -> str:
    """A text that stays in one cell: a bar would open a new column, a line break a new row."""
    return " ".join(text.splitlines()).replace("|", "\\|")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> list[str]:
    """The lines of a table.

    Args:
        heads: of the columns.
        rows: of cells, which may hold any text.
        align: a letter for each column, l or r; empty: all left. The last letter holds for the columns that follow.
    """
    letters = (align or "l") + (align or "l")[-1] * max(0, len(heads) - len(align or "l"))
    rules = [_RULES[letter] for letter in letters[: len(heads)]]
    return [_line(map(cell, heads)), _line(rules), *(_line(map(cell, row)) for row in rows)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
