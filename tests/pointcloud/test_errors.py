"""What a library's error says becomes a part of a sentence."""

from __future__ import annotations

import pytest

from pointcloud.errors import PointloomError, ScanError, first_line, one_line, shortened


@pytest.mark.parametrize(
    ("said", "first", "all_of_it"),
    [
        ("It broke.", "It broke", "It broke"),
        ("\n It broke:\n  at 3.\n", "It broke:", "It broke: at 3"),
        ("", "ValueError", "ValueError"),
    ],
)
def test_an_error_in_one_line(said: str, first: str, all_of_it: str) -> None:
    assert first_line(ValueError(said)) == first
    assert one_line(ValueError(said)) == all_of_it


def test_what_a_damaged_file_says_does_not_drown_the_sentence() -> None:
    error = ScanError(f"k must be at most 256, found {'9' * 100_000!r}; deliver it again.")
    assert len(str(error)) == 1000
    assert str(error).startswith("k must be at most 256, found '999")
    assert str(error).endswith("999'; deliver it again.")
    assert len(one_line(ValueError("word " * 1000))) == 300
    assert shortened("short", 300) == "short"
    assert str(PointloomError()) == ""
